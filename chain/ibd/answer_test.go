package ibd

import (
	"testing"
	"time"
)

// TestDelayEarnsNoQuota: a server that delays its first bytes more and more is
// believed only so far, and one that answers well again is believed at once.
func TestDelayEarnsNoQuota(t *testing.T) {
	t.Parallel()
	s, err := New(Config{MaxBlockBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{scale: fullScale, rtt: time.Millisecond, rate: 1 << 20}
	s.peers["p"], s.order = p, []*peer{p}
	now := time.Second
	for range 20 {
		r := &request{asked: now, alone: true}
		now += 10 * time.Second
		p.began(now, r, 100)
	}
	most := 2*volume(p.rate, p.rtt+mostAnswer+quotaSlack) + 2*s.avg
	if got := s.quota(p); got > most {
		t.Errorf("quota %d, want at most %d", got, most)
	}
	if got := s.patience(p); got > 3*time.Second {
		t.Errorf("patience of %v", got)
	}
	// Replies that wait for one another give upper bounds.
	p.lastDone = now
	p.began(now+30*time.Millisecond, &request{asked: now}, 100)
	if p.answer > 30*time.Millisecond {
		t.Errorf("still believed to need %v", p.answer)
	}
	// A hello may be delayed as well.
	p.rtt = time.Hour
	if got, most := s.quota(p), 2*volume(p.rate, mostRTT+mostAnswer+quotaSlack)+2*s.avg; got > most {
		t.Errorf("quota %d, want at most %d", got, most)
	}
	for range 100 {
		p.lastDone = now
		now += time.Minute
		p.began(now, &request{asked: now - time.Hour}, 100)
	}
	if p.pause > mostPause {
		t.Errorf("pause of %v believed", p.pause)
	}
}

// TestClaimsAreBounded: sizes that nobody has seen yet move the expected size of
// blocks only a few times, and blocks that arrive undo it.
func TestClaimsAreBounded(t *testing.T) {
	t.Parallel()
	s, err := New(Config{MaxBlockBytes: 4_000_000})
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		s.learnSize(250)
	}
	liar := &peer{}
	for range 1000 {
		s.learnClaim(liar, 4_000_000)
	}
	if liar.claims != maxClaims || s.avg > 3_000_000 {
		t.Errorf("%d claims believed, %d bytes expected", liar.claims, s.avg)
	}
	for range 64 {
		s.learnSize(250)
	}
	if s.avg > 1000 {
		t.Errorf("%d bytes expected after 64 blocks of 250", s.avg)
	}
}
