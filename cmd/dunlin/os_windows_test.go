package main

import (
	"errors"
	"os"
	"syscall"
)

// There are no such signals on Windows, no groups that they go to, and no lock of this kind: tests that need them fail and say so.
func freeze(*os.Process) error                      { return errors.ErrUnsupported }
func thaw(*os.Process) error                        { return errors.ErrUnsupported }
func ownGroup(*syscall.SysProcAttr)                 {}
func signalGroup(*os.Process, syscall.Signal) error { return errors.ErrUnsupported }
func lockFile(*os.File) error                       { return errors.ErrUnsupported }
