package main

import "golang.org/x/sys/unix"

// Requests that read and write the settings of a terminal.
const readTermios, writeTermios = unix.TCGETS, unix.TCSETS
