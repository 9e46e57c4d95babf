package node

import (
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Limits of /metrics: gathering asks every part of the node.
const (
	maxScrapes    = 4
	scrapeTimeout = 10 * time.Second
)

// conventional gathers metrics under names as Prometheus wants them (`promtool check metrics`): a counter ends in _total,
// nothing else does, and _count is for histograms. Some of libp2p's own names are not so.
type conventional struct{ prometheus.Gatherer }

// Gather implements prometheus.Gatherer.
func (c conventional) Gather() ([]*dto.MetricFamily, error) {
	families, err := c.Gatherer.Gather()
	taken := make(map[string]bool, len(families))
	for _, f := range families {
		taken[f.GetName()] = true
	}
	for _, f := range families {
		if name := conventionalName(f.GetName(), f.GetType()); !taken[name] {
			taken[name] = true
			f.Name = &name
		}
	}
	slices.SortFunc(families, func(a, b *dto.MetricFamily) int { return strings.Compare(a.GetName(), b.GetName()) })
	return families, err
}

func conventionalName(name string, t dto.MetricType) string {
	switch t {
	case dto.MetricType_COUNTER:
		return strings.TrimSuffix(name, "_total") + "_total"
	case dto.MetricType_HISTOGRAM, dto.MetricType_GAUGE_HISTOGRAM, dto.MetricType_SUMMARY:
		return strings.TrimSuffix(name, "_total")
	default:
		return strings.TrimSuffix(strings.TrimSuffix(name, "_total"), "_count")
	}
}
