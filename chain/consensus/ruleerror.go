package consensus

import "fmt"

// A Blame says what follows from a broken rule.
type Blame uint8

// Whom a broken rule is held against.
const (
	// BlameBlock means that the block (or header) is invalid for ever, and so is whatever
	// builds on it. Whoever sent it as valid misbehaved.
	BlameBlock Blame = iota + 1
	// BlameSender means that the bytes are wrong but the header may be fine (a mutated
	// body, a bad encoding, a stripped witness): never marks the hash.
	BlameSender
	// BlameNobody means that it may become valid (future time, unknown parent): try later.
	BlameNobody
)

// A RuleError says that what a peer sent breaks a consensus rule. Any other
// error from this package or from the chain is our own trouble.
type RuleError struct {
	Rule   string // stable, kebab-case: "bad-diffbits", "high-hash" … (Bitcoin Core's reject reasons where one exists)
	Blame  Blame
	Detail string // the value seen and what would be right
}

func (e *RuleError) Error() string {
	if e.Detail == "" {
		return e.Rule
	}
	return fmt.Sprintf("%s: %s", e.Rule, e.Detail)
}

// badBlock and badSender make the two kinds of rule errors that bodies cause.
func badBlock(rule, format string, args ...any) *RuleError {
	return &RuleError{Rule: rule, Blame: BlameBlock, Detail: fmt.Sprintf(format, args...)}
}

func badSender(rule, format string, args ...any) *RuleError {
	return &RuleError{Rule: rule, Blame: BlameSender, Detail: fmt.Sprintf(format, args...)}
}
