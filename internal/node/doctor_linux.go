package node

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// checkClock asks the kernel whether its clock is being kept right. Blocks more than two hours ahead of our
// clock are refused, so a clock that is behind stops a node.
func checkClock() Finding {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	now := time.Now().UTC().Format(time.DateTime)
	switch {
	case err != nil:
		return Finding{Check: "clock", Verdict: FindingWarn, Detail: fmt.Sprintf("%s UTC; the kernel does not say more: %v", now, err), Do: "compare it with another clock"}
	case state == unix.TIME_ERROR || t.Status&unix.STA_UNSYNC != 0:
		return Finding{
			Check: "clock", Verdict: FindingWarn, Detail: now + " UTC; nothing keeps it right",
			Do: "run a time service (systemd-timesyncd, chrony) on this machine or its host, or compare it with another clock",
		}
	}
	return Finding{Check: "clock", Verdict: FindingOK, Detail: fmt.Sprintf("%s UTC, kept right within %d ms", now, t.Maxerror/1000)}
}

const minOpenFiles = 1024

// checkFiles looks at the limit of open files.
func checkFiles() Finding {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return Finding{Check: "files", Verdict: FindingWarn, Detail: err.Error(), Do: "look at ulimit -n"}
	}
	out := Finding{Check: "files", Verdict: FindingOK, Detail: fmt.Sprintf("%d open files allowed", l.Max)}
	if l.Max < minOpenFiles {
		out.Verdict, out.Do = FindingWarn, fmt.Sprintf("raise it to %d or more: ulimit -n, or LimitNOFILE= of the service", minOpenFiles)
	}
	return out
}
