//go:build !linux

package main

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"
)

// Elsewhere the times are measured all the same; memory, CPU time and the case with
// a frozen peer need Linux.

func attributes() *syscall.SysProcAttr { return nil }

func terminateGroup(p *os.Process) error { return p.Kill() }

func suspend(int) error { return errors.ErrUnsupported }

func resume(int) error { return errors.ErrUnsupported }

func usageOf(int) (cpu time.Duration, peakBytes int64) { return 0, 0 }

func peakOf(*os.ProcessState) int64 { return 0 }

func describeMachine() (model string, memoryBytes int64) { return "", 0 }

func load() float64 { return 0 }

func processorsAtWork(context.Context) (float64, error) { return 0, nil }
