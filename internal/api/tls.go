package api

import (
	"bytes"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// certCheck is how often the files are looked at, at most.
const certCheck = 5 * time.Second

// A certificate is a pair of PEM files that is read again once they have changed, so that a renewed certificate
// needs no restart. If what is new cannot be used, the old one serves on and the log says so.
type certificate struct {
	cert, key string
	log       *slog.Logger
	now       func() time.Time

	mu      sync.Mutex // guards what follows; held while the files are read
	pair    *tls.Certificate
	looked  time.Time
	changed [2]time.Time // of the files that were read last
}

func loadCertificate(cert, key string, log *slog.Logger, now func() time.Time) (*certificate, error) {
	c := &certificate{cert: cert, key: key, log: log, now: now}
	c.looked, c.changed = now(), c.times() // before they are read: what comes in between is read again
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("api: TLS certificate %s: %w", cert, err)
	}
	c.pair = &pair
	return c, nil
}

func (c *certificate) times() (out [2]time.Time) {
	for i, name := range []string{c.cert, c.key} {
		if fi, err := os.Stat(name); err == nil {
			out[i] = fi.ModTime()
		}
	}
	return out
}

// get is the GetCertificate of a tls.Config.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if now.Sub(c.looked) < certCheck {
		return c.pair, nil
	}
	c.looked = now
	if times := c.times(); times != c.changed {
		pair, err := tls.LoadX509KeyPair(c.cert, c.key)
		if err != nil {
			c.log.Warn("new TLS certificate not usable, the old one stays", "file", c.cert, "err", err)
		} else {
			c.pair = &pair
			c.log.Info("TLS certificate renewed", "file", c.cert)
		}
		c.changed = times
	}
	return c.pair, nil
}

// pinned is a TLS configuration that accepts one server alone: the one with the first certificate of a PEM file, by
// whatever name or address it is reached. The command line reads the file of its own node, which it trusts as
// it trusts the cookie.
func pinned(name string) (*tls.Config, error) {
	raw, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("TLS certificate: %w", err)
	}
	var want []byte
	for want == nil {
		var block *pem.Block
		if block, raw = pem.Decode(raw); block == nil {
			return nil, fmt.Errorf("TLS certificate %s: no certificate in it", name)
		}
		if block.Type == "CERTIFICATE" {
			want = block.Bytes
		}
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, //nolint:gosec // the next lines are stricter than what is skipped
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 || !bytes.Equal(s.PeerCertificates[0].Raw, want) {
				return errors.New("the certificate is not that of " + name)
			}
			return nil
		},
	}, nil
}
