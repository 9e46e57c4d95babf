package main

import "github.com/spf13/cobra"

func newTestnet() *cobra.Command { return &cobra.Command{Use: "testnet"} }
