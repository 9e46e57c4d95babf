package discovery

import (
	"context"
	"encoding/binary"
	"strings"
	"sync"
	"time"

	ds "github.com/ipfs/go-datastore"
	dsq "github.com/ipfs/go-datastore/query"
)

// Limits of the provider records that other peers may store with us. kad-dht
// has none of its own, so a flood of ADD_PROVIDER would take all memory.
const (
	maxProvidersPerKey  = 256
	maxKeysPerProvider  = 16
	maxProviderRecords  = 16_384
	maxProviderKeys     = 1024
	maxProviderKeyBytes = 256 // "/providers/" + base32 of an 80-byte key + base32 of a peer id

	// A record that was not refreshed for this long missed a republish (every
	// 10 min): a new provider may take its place when the key is full. Fresh
	// records never give way, so a flood of new identities cannot displace the
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

	mu     sync.Mutex                   // guards what follows; held for map operations and one scan of a key or of all records
	keys   map[string]map[string][]byte // key → provider → value (varint UnixNano)
	byPeer map[string]int               // provider → number of keys
	fresh  map[string]int64             // key that was found full → no record of it is stale before (UnixNano)
	total  int
}

var _ ds.Batching = (*providerStore)(nil)

func newProviderStore(own string, now func() time.Time) *providerStore {
	return &providerStore{own: own, now: now, keys: map[string]map[string][]byte{}, byPeer: map[string]int{}, fresh: map[string]int64{}}
}

// splitProviderKey divides "/providers/<key>/<provider>".
func splitProviderKey(k string) (key, provider string, ok bool) {
	i := strings.LastIndexByte(k, '/')
	if i <= 0 || i == len(k)-1 || len(k) > maxProviderKeyBytes || strings.Count(k, "/") != 3 {
		return "", "", false
	}
	return k[:i], k[i+1:], true
}

// Put implements ds.Datastore.
func (s *providerStore) Put(_ context.Context, k ds.Key, value []byte) error {
	key, provider, ok := splitProviderKey(k.String())
	if !ok || len(value) > binary.MaxVarintLen64 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.keys[key]
	if _, known := m[provider]; known {
		m[provider] = value
		return nil
	}
	if s.byPeer[provider] >= maxKeysPerProvider {
		return nil
	}
	if m == nil {
		if key != s.own && len(s.keys) >= maxProviderKeys {
			return nil
		}
	}
	if key != s.own && s.total >= maxProviderRecords {
		return nil
	}
	if len(m) >= maxProvidersPerKey {
		stale, ok := s.stalest(key, m)
		if !ok {
			return nil
		}
		s.remove(key, stale)
		m = s.keys[key]
	}
	if m == nil {
		m = map[string][]byte{}
		s.keys[key] = m
	}
	m[provider] = value
	s.byPeer[provider]++
	s.total++
	return nil
}

// stalest returns the provider of m, the records of key, that was refreshed last the longest ago, if that is long
// enough ago. It remembers when there may be one, so that a flood of records for a full key does not look at all that
// are there, each time. The caller holds mu.
func (s *providerStore) stalest(key string, m map[string][]byte) (provider string, ok bool) {
	now := s.now()
	if now.UnixNano() < s.fresh[key] {
		return "", false
	}
	oldest := now.UnixNano()
	for p, v := range m {
		if at, n := binary.Varint(v); n <= 0 || at < oldest {
			oldest, provider = at, p
		}
	}
	due := time.Unix(0, oldest).Add(providerStaleAfter)
	if provider == "" || now.Before(due) {
		s.fresh[key] = due.UnixNano()
		return "", false
	}
	return provider, true
}

// remove forgets a record. The caller holds mu.
func (s *providerStore) remove(key, provider string) {
	m := s.keys[key]
	if _, ok := m[provider]; !ok {
		return
	}
	delete(m, provider)
	if len(m) == 0 {
		delete(s.keys, key)
		delete(s.fresh, key)
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
	if v, ok := s.keys[key][provider]; ok {
		return v, nil
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

func appendProviders(out []dsq.Entry, key string, m map[string][]byte) []dsq.Entry {
	for p, v := range m {
		out = append(out, dsq.Entry{Key: key + "/" + p, Value: v, Size: len(v)})
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
