package descriptor_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"dunlin/chain/consensus"
	"dunlin/internal/wallet/descriptor"
)

// TestMiniscriptTypes: types, malleability, scripts and limits as Bitcoin Core has them.
func TestMiniscriptTypes(t *testing.T) {
	n := 0
	for _, line := range lines(t, "miniscript.txt") {
		row := strings.Split(line, "\t")
		text, want := row[0], row[1]
		n++
		a, err := descriptor.Analyse(text, false)
		if (err == nil) != strings.Contains(want, "V") {
			t.Errorf("%s: %v, want %s", text, err, want)
			continue
		}
		if err != nil {
			continue
		}
		for letter, got := range map[string]bool{"M": a.NonMalleable, "S": a.NeedsSignature, "X": a.LocksMix} {
			if got != strings.Contains(want, letter) {
				t.Errorf("%s: %s is %v, want %s", text, letter, got, want)
			}
		}
		if len(row) > 2 && a.Script != row[2] {
			t.Errorf("%s: script %s, want %s", text, a.Script, row[2])
		}
		if len(row) > 4 {
			if got := strconv.Itoa(a.Ops) + " " + strconv.Itoa(a.Items); got != row[3]+" "+row[4] {
				t.Errorf("%s: operations and items %s, want %s %s", text, got, row[3], row[4])
			}
		}
		again, err := descriptor.Analyse(a.Text, false)
		if err != nil || again != a {
			t.Errorf("%s becomes %s: %v", text, a.Text, err)
		}
	}
	if n < 70 {
		t.Errorf("only %d scripts", n)
	}
}

// TestMinimalIf: d: leaves exactly 1 in tapscript only, where consensus demands it of IF.
func TestMinimalIf(t *testing.T) {
	const script = "or_d(d:v:older(4252898),sha256(38df1c1f64a24a77b23393bca50dff872e31edc4f3b5aa3b90ad0b82f4f089b6))"
	text := strings.Replace(script, "d:v:", "dv:", 1)
	if _, err := descriptor.Analyse(text, false); err == nil {
		t.Error("accepted in P2WSH")
	}
	if _, err := descriptor.Analyse(text, true); err != nil {
		t.Errorf("refused in tapscript: %v", err)
	}
}

// key33 and keyX are the i-th of some public keys.
func key33(i int) string {
	return "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798 02c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5 02f9308a019258c31049344f85f89d5229b531c845836f99b08601f113bce036f9 02e493dbf1c10d80f3581e4904930b1404cc6c13900ee0758474fa94abe8c4cd13"[67*i : 67*i+66]
}

// manyKeys returns a comma-separated list of n public keys that differ by the steps behind an extended key.
func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, ",%s/%d", xpub, i)
	}
	return b.String()
}

const xpub = "xpub68Gmy5EdvgibQVfPdqkBBCHxA5htiqg55crXYuXoQRKfDBFA1WEjWgP6LHhwBZeNK1VTsfTFUHCdrfp1bgwQ9xv5ski8PX9rL2dZXvgGDnw"

// TestScriptLimits: each limit lets through what is at it and stops what is over it.
func TestScriptLimits(t *testing.T) {
	pk := "pk(" + key33(0) + ")"
	nest := func(levels int) string { // levels functions around pk, which is one itself
		return strings.Repeat("and_v(v:older(1),", levels) + pk + strings.Repeat(")", levels)
	}
	var pks []string
	for i := range 75 {
		pks = append(pks, fmt.Sprintf("s:pk(%s/%d)", xpub, i))
	}
	thresh := func(k, n int) string {
		return fmt.Sprintf("thresh(%d,%s,%s)", k, pk, strings.Join(pks[:n-1], ","))
	}
	tree := func(depth int) string {
		return strings.Repeat("{"+pk+",", depth) + pk + strings.Repeat("}", depth)
	}
	for name, row := range map[string][2]string{
		"bare multisig":                        {"multi(1," + key33(0) + manyKeys(2) + ")", "multi(1," + key33(0) + manyKeys(3) + ")"},
		"sh size":                              {"sh(multi(1" + manyKeys(15) + "))", "sh(multi(1" + manyKeys(16) + "))"},
		"wsh multisig":                         {"wsh(multi(20" + manyKeys(20) + "))", "wsh(multi(20" + manyKeys(21) + "))"},
		"multi_a":                              {"tr(" + key33(1) + ",multi_a(3" + manyKeys(60) + "))", "tr(" + key33(1) + ",multi_a(61" + manyKeys(60) + "))"},
		"depth":                                {"wsh(" + nest(descriptor.MaxDepth-1) + ")", "wsh(" + nest(descriptor.MaxDepth) + ")"},
		"tree depth":                           {"tr(" + key33(1) + "," + tree(descriptor.MaxTreeDepth) + ")", "tr(" + key33(1) + "," + tree(descriptor.MaxTreeDepth+1) + ")"},
		"operations":                           {"wsh(" + thresh(1, 67) + ")", "wsh(" + thresh(1, 68) + ")"}, // CHECKSIG, and SWAP CHECKSIG ADD for each more, and EQUAL
		"tapscript has no limit of operations": {"tr(" + key33(1) + "," + thresh(1, 75) + ")", ""},
		"conditions":                           {"tr(" + key33(1) + ",thresh(1," + pk + strings.Repeat(",a:0", 199) + "))", "tr(" + key33(1) + ",thresh(1," + pk + strings.Repeat(",a:0", 200) + "))"},
		"wrappers":                             {"wsh(" + strings.Repeat("n", 16) + ":" + pk + ")", "wsh(" + strings.Repeat("n", 17) + ":" + pk + ")"},
		"steps":                                {"pk(" + xpub + strings.Repeat("/0", 254) + ")", "pk(" + xpub + strings.Repeat("/0", 256) + ")"},
		"alternatives":                         {"pk(" + xpub + "/<0" + numbers(1, 31) + ">)", "pk(" + xpub + "/<0" + numbers(1, 32) + ">)"},
	} {
		if _, err := descriptor.Parse(row[0], consensus.Bitcoin()); err != nil {
			t.Errorf("%s: at the limit: %v", name, err)
		}
		if row[1] == "" {
			continue
		}
		if _, err := descriptor.Parse(row[1], consensus.Bitcoin()); err == nil {
			t.Errorf("%s: over the limit: accepted", name)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
}

func numbers(from, to int) string {
	var b strings.Builder
	for i := from; i <= to; i++ {
		fmt.Fprintf(&b, ";%d", i)
	}
	return b.String()
}

// TestHostileTexts: texts of the greatest length that were made to be slow or deep come to an end, accepted or not.
func TestHostileTexts(t *testing.T) {
	const size = descriptor.MaxTextBytes - 200
	fill := func(form, part string) string {
		return fmt.Sprintf(form, strings.Repeat(part, (size-len(form))/len(part)))
	}
	deep := (descriptor.MaxTextBytes - 300) / 8
	for name, text := range map[string]string{
		"braces":      "tr(" + keyX + "," + strings.Repeat("{", size) + ")",
		"functions":   "wsh(" + strings.Repeat("and_v(", deep) + ")",
		"wrappers":    "wsh(" + strings.Repeat("n", size) + ":1)",
		"wrapped":     fill("wsh(thresh(1,pk("+key33(0)+")%s))", ",aaaaaaaaaaaaaaaa:0"),
		"conditions":  fill("wsh(thresh(1,pk("+key33(0)+")%s))", ",a:0"),
		"nested":      fill("tr("+keyX+",and_v(v:pk("+key33(0)+"),thresh(1,pk("+key33(1)+")%s)))", ",a:thresh(1,0,a:0,a:0,a:0)"),
		"steps":       "pk(" + hot + strings.Repeat("/0h", 254) + ")",
		"many steps":  fill("sh(multi(1%s))", ","+hot+strings.Repeat("/0h", 254)),
		"many keys":   fill("tr("+keyX+",multi_a(1%s))", ","+xpub+"/0"),
		"multipath":   fill("tr("+keyX+",multi_a(1%s))", ","+xpub+"/<0"+numbers(1, 31)+">/*"),
		"commas":      fill("multi(1%s)", ","),
		"raw":         fill("raw(%s)", "00"),
		"brackets":    fill("pk(%s)", "["),
		"hash":        fill("raw(00)%s", "#"),
		"long number": fill("wsh(older(%s))", "1"),
	} {
		start := time.Now()
		d, err := descriptor.Parse(text, consensus.Bitcoin())
		if err == nil {
			for _, one := range d.Expand()[:1] {
				_, _ = one.Derive(0)
			}
			_ = d.String()
		} else if len(err.Error()) > 500 {
			t.Errorf("%s: an error of %d bytes", name, len(err.Error()))
		}
		t.Logf("%s: %d bytes in %v: %v", name, len(text), time.Since(start).Round(time.Millisecond), err)
	}
}
