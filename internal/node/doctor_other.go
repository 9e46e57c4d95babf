//go:build !linux

package node

import "time"

// checkClock tells the time; the system is not asked whether it is right.
func checkClock() Finding {
	return Finding{Check: "clock", Verdict: FindingOK, Detail: time.Now().UTC().Format(time.DateTime) + " UTC by this machine"}
}

// checkFiles is for Linux only.
func checkFiles() Finding {
	return Finding{Check: "files", Verdict: FindingOK, Detail: "not looked at on this system"}
}
