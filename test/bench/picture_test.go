package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func someBalance() []*result {
	var all []*result
	for _, load := range []string{"50", "90"} {
		r := &result{Name: balanceCase + "-" + load, names: []string{"haproxy leastconn", "nginx <least>", "outrigger resource"}, own: "outrigger resource", metrics: balanceMetrics()}
		for i := range 3 {
			f := func(v float64) figures {
				return figures{keyMS50: v / 4, keyMS99: v + float64(i), keyMS999: 1000, keyGoodput: 99}
			}
			r.Rounds = append(r.Rounds, round{"haproxy leastconn": f(600), "nginx <least>": f(800), "outrigger resource": f(200)})
		}
		all = append(all, r)
	}
	return append(all, someResult())
}

func TestPictureIsXMLWithAllThatWasMeasured(t *testing.T) {
	var out bytes.Buffer
	if err := draw(&out, someBalance()); err != nil {
		t.Fatal(err)
	}
	elements := map[string]int{}
	var texts []string
	for d := xml.NewDecoder(bytes.NewReader(out.Bytes())); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			elements[token.Name.Local]++
			for _, a := range token.Attr {
				if strings.Contains(a.Value, "NaN") || strings.Contains(a.Value, "Inf") {
					t.Errorf("%s: %q", a.Name.Local, a.Value)
				}
			}
		case xml.CharData:
			texts = append(texts, string(token))
		}
	}
	if n := 3 * len(panels()); elements["polyline"] != n || elements["circle"] != 2*n {
		t.Errorf("%v, want %d curves over 2 loads", elements, n)
	}
	all := strings.Join(texts, "|")
	for _, want := range []string{"nginx <least>", "outrigger resource", "p99, ms", "50 %", "90 %", "goodput"} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is missing in %q", want, all)
		}
	}
	if strings.Contains(all, "small-64") {
		t.Error("another case was drawn")
	}
}

func TestPictureFile(t *testing.T) {
	if drawable([]*result{someResult()}) || drawable(nil) || !drawable(someBalance()) {
		t.Error("what can be drawn is the case balance, and no other")
	}
	file := filepath.Join(t.TempDir(), "x.svg")
	if err := writePicture(file, someBalance()); err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(file); err != nil || !bytes.HasSuffix(text, []byte("</svg>\n")) {
		t.Errorf("%.40q, %v", text, err)
	}
}

func TestScale(t *testing.T) {
	s := scale{low: 10, high: 1000, log: true, length: 100}
	for v, want := range map[float64]float64{10: 0, 100: 50, 1000: 100, 1: 0} {
		if got := s.at(v); math.Abs(got-want) > 1e-9 {
			t.Errorf("%v is at %v, want %v", v, got, want)
		}
	}
	for _, s := range []scale{s, scaleOf(curves(someBalance(), keyGoodput), false, 100), scaleOf(curves(someBalance(), keyMS99), true, 100)} {
		if len(s.ticks()) < 2 {
			t.Errorf("%+v has ticks %v", s, s.ticks())
		}
		for _, v := range s.ticks() {
			if at := s.at(v); at < -1e-9 || at > s.length+1e-9 {
				t.Errorf("%+v: tick %v is at %v", s, v, at)
			}
		}
	}
}
