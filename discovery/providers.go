package discovery

import (
	"context"
	"encoding/base32"
	"encoding/binary"
	"math"
	"strings"
	"sync"
	"time"

	ds "github.com/ipfs/go-datastore"
	dsq "github.com/ipfs/go-datastore/query"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Limits of the provider records that other peers may store with us. kad-dht
// has none of its own, so a flood of ADD_PROVIDER would take all memory.
const (
	maxProvidersPerKey  = 256
	maxKeysPerProvider  = 16
	maxProviderRecords  = 16_384
	maxProviderKeys     = 1024
	maxProviderKeyBytes = 256 // "/providers/" + base32 of an 80-byte key + base32 of a peer id

	// On a public network the providers that one IP group connects from may have so many records, of a key and in all. When
	// a key is full, a group with fewer records takes the place of one with more: a flood from few groups leaves room for the others.
	maxGroupPerKey  = maxProvidersPerKey / 8
	maxGroupRecords = maxProviderRecords / 8

	// A record that was not refreshed for this long missed a republish (every
	// 10 min): a new provider may take its place when the key is full. Fresh
	// records never give way among equals, so a flood of new identities cannot displace the
	// honest peers that came before it.
	providerStaleAfter = 12 * time.Minute
)

// providerStore is the datastore below kad-dht's provider manager: an in-memory
// map with limits per key, per provider and in total. A record above a limit is
// dropped in silence, as the sender of ADD_PROVIDER gets no answer anyhow.
//
// The namespace's own rendezvous key is exempt from the limit in total: foreign
// keys cannot crowd it out.
type providerStore struct {
	own string // datastore key of the rendezvous, without a provider
	now func() time.Time
	// groupOf names the IP group from which a provider is connected, or was; "": it has none, and no share.
	groupOf func(peer.ID) string

	mu      sync.Mutex // guards what follows; held for map operations and one scan of a key or of all records
	keys    map[string]*providerSet
	byPeer  map[string]int // provider → number of keys
	byGroup map[string]int // IP group → records in all
	total   int
}

// providerSet are the records of a key; there is one at least.
type providerSet struct {
	records map[string]*providerRecord // by provider
	groups  map[string]int             // records by IP group
	oldest  int64                      // no record was last refreshed before: nobody looks for a stale one in vain
}

// providerRecord says that a provider has a key.
type providerRecord struct {
	value []byte // varint UnixNano of the last refresh
	group string // as when it was first put
}

var _ ds.Batching = (*providerStore)(nil)

func newProviderStore(own string, now func() time.Time, groupOf func(peer.ID) string) *providerStore {
	return &providerStore{
		own: own, now: now, groupOf: groupOf,
		keys: map[string]*providerSet{}, byPeer: map[string]int{}, byGroup: map[string]int{},
	}
}

// splitProviderKey divides "/providers/<key>/<provider>".
func splitProviderKey(k string) (key, provider string, ok bool) {
	i := strings.LastIndexByte(k, '/')
	if i <= 0 || i == len(k)-1 || len(k) > maxProviderKeyBytes || strings.Count(k, "/") != 3 {
		return "", "", false
	}
	return k[:i], k[i+1:], true
}

// groupOfProvider is the group of a provider as the datastore key names it.
func (s *providerStore) groupOfProvider(provider string) string {
	id, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(provider)
	if s.groupOf == nil || err != nil {
		return ""
	}
	return s.groupOf(peer.ID(id))
}

// Put implements ds.Datastore.
func (s *providerStore) Put(_ context.Context, k ds.Key, value []byte) error {
	key, provider, ok := splitProviderKey(k.String())
	if !ok || len(value) > binary.MaxVarintLen64 {
		return nil
	}
	group := s.groupOfProvider(provider) // asks the host: before the lock
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.keys[key]
	if m != nil && m.records[provider] != nil {
		m.records[provider].value = value
		m.oldest = min(m.oldest, refreshed(value))
		return nil
	}
	switch {
	case s.byPeer[provider] >= maxKeysPerProvider,
		m == nil && key != s.own && len(s.keys) >= maxProviderKeys,
		key != s.own && s.total >= maxProviderRecords,
		key != s.own && group != "" && s.byGroup[group] >= maxGroupRecords,
		m != nil && !s.makeRoom(key, m, group):
		return nil
	}
	if m = s.keys[key]; m == nil {
		m = &providerSet{records: map[string]*providerRecord{}, groups: map[string]int{}, oldest: refreshed(value)}
		s.keys[key] = m
	}
	m.records[provider] = &providerRecord{value, group}
	m.oldest = min(m.oldest, refreshed(value))
	s.byPeer[provider]++
	if group != "" {
		m.groups[group]++
		s.byGroup[group]++
	}
	s.total++
	return nil
}

// makeRoom reports whether a record of a provider of the group may be put under the key, whose records are m, and takes
// another one away if that is needed. The caller holds mu.
func (s *providerStore) makeRoom(key string, m *providerSet, group string) bool {
	stale := s.now().Add(-providerStaleAfter).UnixNano()
	if group != "" && m.groups[group] >= maxGroupPerKey {
		return s.drop(key, m, func(r *providerRecord) bool { return r.group == group }, stale)
	}
	if len(m.records) < maxProvidersPerKey || s.drop(key, m, func(*providerRecord) bool { return true }, stale) {
		return true
	}
	if group == "" {
		return false
	}
	largest := group
	for g, n := range m.groups {
		if n > m.groups[largest] || n == m.groups[largest] && g < largest {
			largest = g
		}
	}
	if m.groups[largest] <= m.groups[group]+1 { // equals, or they would take turns without end
		return false
	}
	return s.drop(key, m, func(r *providerRecord) bool { return r.group == largest }, math.MaxInt64)
}

// refreshed is the time in the value of a record, Unix nanoseconds; 0 if there is none.
func refreshed(value []byte) int64 {
	at, n := binary.Varint(value)
	if n <= 0 {
		return 0
	}
	return at
}

// drop takes away the record of m that was refreshed longest ago, of those to which it applies and that were refreshed
// before the limit. The caller holds mu.
func (s *providerStore) drop(key string, m *providerSet, applies func(*providerRecord) bool, limit int64) bool {
	if m.oldest >= limit {
		return false
	}
	victim, found, oldest := "", false, int64(math.MaxInt64)
	for p, r := range m.records {
		at := refreshed(r.value)
		oldest = min(oldest, at)
		if at < limit && applies(r) {
			limit, victim, found = at, p, true
		}
	}
	m.oldest = oldest
	if found {
		s.remove(key, victim)
	}
	return found
}

// remove forgets a record. The caller holds mu.
func (s *providerStore) remove(key, provider string) {
	m := s.keys[key]
	if m == nil || m.records[provider] == nil {
		return
	}
	group := m.records[provider].group
	delete(m.records, provider)
	if len(m.records) == 0 {
		delete(s.keys, key)
	}
	if m.groups[group]--; m.groups[group] <= 0 {
		delete(m.groups, group)
	}
	if s.byGroup[group]--; s.byGroup[group] <= 0 {
		delete(s.byGroup, group)
	}
	if s.byPeer[provider]--; s.byPeer[provider] <= 0 {
		delete(s.byPeer, provider)
	}
	s.total--
}

// Delete implements ds.Datastore.
func (s *providerStore) Delete(_ context.Context, k ds.Key) error {
	if key, provider, ok := splitProviderKey(k.String()); ok {
		s.mu.Lock()
		s.remove(key, provider)
		s.mu.Unlock()
	}
	return nil
}

// Get implements ds.Datastore.
func (s *providerStore) Get(_ context.Context, k ds.Key) ([]byte, error) {
	key, provider, _ := splitProviderKey(k.String())
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.keys[key]; m != nil && m.records[provider] != nil {
		return m.records[provider].value, nil
	}
	return nil, ds.ErrNotFound
}

// Has implements ds.Datastore.
func (s *providerStore) Has(ctx context.Context, k ds.Key) (bool, error) {
	_, err := s.Get(ctx, k)
	return err == nil, nil
}

// GetSize implements ds.Datastore.
func (s *providerStore) GetSize(ctx context.Context, k ds.Key) (int, error) {
	v, err := s.Get(ctx, k)
	if err != nil {
		return -1, err
	}
	return len(v), nil
}

// Query implements ds.Datastore for the two queries that the provider manager
// makes: all records of a key, and all records.
func (s *providerStore) Query(_ context.Context, q dsq.Query) (dsq.Results, error) {
	prefix := strings.TrimSuffix(q.Prefix, "/")
	var out []dsq.Entry
	s.mu.Lock()
	if m, ok := s.keys[prefix]; ok {
		out = appendProviders(out, prefix, m)
	} else if strings.Count(prefix, "/") < 2 {
		for key, m := range s.keys {
			if strings.HasPrefix(key, prefix+"/") {
				out = appendProviders(out, key, m)
			}
		}
	}
	s.mu.Unlock()
	q.Prefix = ""
	return dsq.NaiveQueryApply(q, dsq.ResultsWithEntries(q, out)), nil
}

func appendProviders(out []dsq.Entry, key string, m *providerSet) []dsq.Entry {
	for p, r := range m.records {
		out = append(out, dsq.Entry{Key: key + "/" + p, Value: r.value, Size: len(r.value)})
	}
	return out
}

// Batch implements ds.Batching.
func (s *providerStore) Batch(context.Context) (ds.Batch, error) { return ds.NewBasicBatch(s), nil }

// Sync implements ds.Datastore.
func (s *providerStore) Sync(context.Context, ds.Key) error { return nil }

// Close implements ds.Datastore.
func (s *providerStore) Close() error { return nil }

// noCache is the provider manager's read cache, switched off: the manager adds
// to a cached key without any limit, and our store answers from memory anyhow.
// Its methods are those of simplelru.LRUCache.
type noCache struct{}

// Add keeps nothing.
func (noCache) Add(_, _ any) bool { return false }

// Get finds nothing.
func (noCache) Get(any) (any, bool) { return nil, false }

// Contains finds nothing.
func (noCache) Contains(any) bool { return false }

// Peek finds nothing.
func (noCache) Peek(any) (any, bool) { return nil, false }

// Remove has nothing to remove.
func (noCache) Remove(any) bool { return false }

// RemoveOldest has nothing to remove.
func (noCache) RemoveOldest() (any, any, bool) { return nil, nil, false }

// GetOldest finds nothing.
func (noCache) GetOldest() (any, any, bool) { return nil, nil, false }

// Keys has none.
func (noCache) Keys() []any { return nil }

// Len is 0.
func (noCache) Len() int { return 0 }

// Purge has nothing to remove.
func (noCache) Purge() {}

// Resize has nothing to remove.
func (noCache) Resize(int) int { return 0 }
