package config_test

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dunlin/config"
)

// office is an invitation into a network of its own, with n nodes.
func office(t testing.TB, nodes int) config.Invitation {
	t.Helper()
	spec := config.DefaultNetworkSpec("office", time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC))
	spec.GenesisText, spec.DNSSeeds = `quotes " and ünïcode`, []string{"seed.example.org"}
	file := filepath.Join(t.TempDir(), "office.toml")
	n, err := config.WriteNetworkFile(file, spec)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for i := range nodes {
		all = append(all, fmt.Sprintf("/ip4/192.0.2.%d/tcp/9333/p2p/12D3KooWFTLeUYG4UaSGtADtVLVaTFfEm7Axnf1GLpQDCzhVAv9K", i+1))
	}
	i, err := config.NewInvitation(n, all...)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// TestInvitation: an invitation says the same after its way, whatever a mail did to its line.
func TestInvitation(t *testing.T) {
	t.Parallel()
	for _, nodes := range []int{0, 1, config.MaxInvited, config.MaxInvited + 3} {
		in := office(t, nodes)
		text := in.String()
		broken := "  " + text[:20] + "\r\n" + text[20:50] + "\n\t" + text[50:] + "\n"
		for _, s := range []string{text, broken} {
			out, err := config.ParseInvitation(s)
			if err != nil {
				t.Fatalf("%d nodes: %v", nodes, err)
			}
			if !bytes.Equal(out.NetworkFile(), in.NetworkFile()) || out.Network.ChainID() != in.Network.ChainID() ||
				len(out.Network.Bootstrap) != min(nodes, config.MaxInvited) || !slices.Equal(out.Network.Bootstrap, in.Network.Bootstrap) {
				t.Errorf("%d nodes: %+v, want %+v", nodes, out.Network, in.Network)
			}
		}
		if nodes == 1 && len(text) > 320 {
			t.Errorf("%d characters for one node", len(text))
		}
		t.Logf("%d nodes: %d characters", nodes, len(text))
	}
	for _, name := range config.PresetNames() {
		n, err := config.Preset(name)
		if err != nil {
			t.Fatal(err)
		}
		in, err := config.NewInvitation(n, nodeA, nodeB)
		if err != nil {
			t.Fatal(err)
		}
		out, err := config.ParseInvitation(in.String())
		if err != nil || out.Network.ChainID() != n.ChainID() || !slices.Equal(out.Network.Bootstrap, []string{nodeA, nodeB}) || out.NetworkFile() != nil {
			t.Errorf("%s: %+v, %v", name, out, err)
		}
	}
}

// TestInvitationForm: a line that was handed out once can be read for ever. This one was made by the first version.
func TestInvitationForm(t *testing.T) {
	t.Parallel()
	const line = "dunlin18grBP1BSe9d9e9uJ4zBJ1k8VstQwiSJxTLtkH7es1a4AbQsomHLgnywH22HgQ2TJvjkdLxafkWjtr1X9RBQ5Wq8zkRi8kDmb5BjCp1DEGvPh8osMa1P3CpRcMkWwsgPMs1oAWXJNVU551BpY8TnHCLfJ9uJRaSAX4DCFc1iRxdkTozkHkJw7zmsEtKXUjiz3Y"
	i, err := config.ParseInvitation(line)
	if err != nil || i.Network.Params.Name != "testnet" ||
		!slices.Equal(i.Network.Bootstrap, []string{"/ip4/192.168.1.20/tcp/9363/p2p/12D3KooWFTLeUYG4UaSGtADtVLVaTFfEm7Axnf1GLpQDCzhVAv9K"}) {
		t.Errorf("%+v, %v", i.Network, err)
	}
}

// TestInvitationDamage: a line with a character changed, lost or doubled is refused, wherever that is.
func TestInvitationDamage(t *testing.T) {
	t.Parallel()
	text := office(t, 2).String()
	for i := range text {
		other := "A"
		if text[i] == 'A' {
			other = "B"
		}
		for _, bad := range []string{text[:i] + other + text[i+1:], text[:i] + text[i+1:], text[:i] + text[i:i+1] + text[i:]} {
			if bad == text {
				continue
			}
			if _, err := config.ParseInvitation(bad); err == nil {
				t.Fatalf("character %d: %s is taken", i, bad)
			}
		}
	}
	for name, bad := range map[string]string{
		"":                       "",
		"must begin with":        "dunlin2" + text[7:],
		"at most 8192":           text + strings.Repeat("1", 8192),
		"is damaged":             "dunlin1",
		"a character is missing": "dunlin1" + "0OIl",
	} {
		if _, err := config.ParseInvitation(bad); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%q: %v, want %q", bad[:min(len(bad), 20)], err, name)
		}
	}
}

// FuzzInvitation: no text makes the parser fail, and what it takes it writes so that it reads the same.
func FuzzInvitation(f *testing.F) {
	f.Add(office(f, 1).String())
	f.Add("dunlin1")
	f.Fuzz(func(t *testing.T, s string) {
		i, err := config.ParseInvitation(s)
		if err != nil {
			return
		}
		again, err := config.ParseInvitation(i.String())
		if err != nil || again.Network.ChainID() != i.Network.ChainID() || !slices.Equal(again.Network.Bootstrap, i.Network.Bootstrap) {
			t.Errorf("%v", err)
		}
	})
}
