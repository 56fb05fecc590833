package config

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"outrigger/discovery"
	"outrigger/sidecar"
)

// TestBlameIsFair draws settings and values at random and holds that blame finds
// exactly what is wrong: without the lines that it names the text loads, in at
// most three rounds, and any one of them put back is an error.
func TestBlameIsFair(t *testing.T) {
	base := sidecar.DefaultConfig()
	lines := append(oneLiners(baseTable(&base), ""), oneLiners(serviceTable(newService("x")), "service \"x\"")...)
	refused, loaded := 0, 0
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		var chosen []chosenSetting
		for _, l := range lines {
			if r.IntN(4) == 0 {
				chosen = append(chosen, chosenSetting{l, l.values[r.IntN(len(l.values))]})
			}
		}
		var dropped []chosenSetting
		history := ""
		for round := 0; ; round++ {
			text, at := spell(chosen)
			cfg, err := loadText(text, nil)
			if err == nil {
				loaded++
				if again, err := loadText(effective(t, cfg), nil); err != nil || !reflect.DeepEqual(cfg, again) {
					t.Fatalf("seed %d: came back changed: %v\n%s", seed, err, text)
				}
				break
			}
			history += err.Error() + "\n\n"
			if refused++; round == 3 {
				t.Fatalf("seed %d: still wrong after 3 rounds\n%v", seed, err)
			}
			bad := map[int]bool{}
			for _, p := range err.(Problems) {
				i, ok := at[p.Line]
				if !ok || !strings.Contains(p.Snippet, chosen[i].value) {
					t.Fatalf("seed %d: blames no setting:\n%v", seed, p)
				}
				if bad[i] {
					t.Fatalf("seed %d: blamed twice:\n%v", seed, err)
				}
				bad[i] = true
			}
			var kept []chosenSetting
			for i, c := range chosen {
				if bad[i] {
					dropped = append(dropped, c)
				} else {
					kept = append(kept, c)
				}
			}
			chosen = kept
		}
		for _, c := range dropped {
			text, _ := spell(append(chosen[:len(chosen):len(chosen)], c))
			if _, err := loadText(text, nil); err == nil {
				t.Fatalf("seed %d: %s = %s was blamed, but loads:\n%s\n%s", seed, c.name, c.value, text, history)
			}
		}
	}
	if refused < 60 || loaded != 60 {
		t.Errorf("%d texts were refused, %d loaded", refused, loaded)
	}
}

// oneLiner is a setting with the blocks around it, and values for it.
type oneLiner struct {
	blocks []string
	name   string
	values []string
}

type chosenSetting struct {
	oneLiner
	value string
}

func oneLiners(b *block, in string) []oneLiner {
	var list []oneLiner
	add := func(settings []setting) {
		for _, s := range settings {
			if v := sampleValues(s); v != nil && s.name != "listen" {
				list = append(list, oneLiner{name: s.name, values: v})
			}
		}
	}
	add(b.settings)
	for label, v := range b.variants {
		if b.otherwise == "" || label == b.otherwise { // else one name may be there twice
			add(v)
		}
	}
	for _, c := range b.blocks {
		head := c.name
		switch c.name {
		case "policy":
			head += ` "resource"`
		case "health_check":
			head += ` "http"`
		case "shadow":
			head += ` "peak_ewma"` // one block for all lines, and never the policy's own name
		}
		list = append(list, oneLiners(c, head)...)
	}
	if in != "" {
		for i := range list {
			list[i].blocks = append([]string{in}, list[i].blocks...)
		}
	}
	return list
}

func sampleValues(s setting) []string {
	switch s.dest.(type) {
	case *field[time.Duration]:
		return []string{`"1ns"`, `"15ms"`, `"400ms"`, `"1s"`, `"1100ms"`, `"7s"`, `"20s"`, `"45s"`, `"8m"`, `"30m"`, `"2h"`, `"100h"`, `"-5s"`}
	case *field[int]:
		if strings.HasPrefix(s.dest.text(), `"`) {
			return []string{`"1B"`, `"300B"`, `"9KiB"`, `"40KiB"`, `"3GiB"`}
		}
		return []string{"-1", "1", "9", "99", "1001", "20000000"}
	case *field[int64]:
		return []string{`"1B"`, `"1MiB"`, `"3GiB"`}
	case *field[float64]:
		return []string{"-0.1", "0", "0.25", "0.75", "1", "1.01"}
	case *field[bool]:
		return []string{"true", "false"}
	case *field[[]int]:
		return []string{"[]", "[500]", "[200]"}
	case *field[[]string]:
		return []string{"[]", `["a"]`, `["a", ""]`, `["\u0007"]`}
	case *field[string]:
		if s.name == "level" || s.name == "format" { // forms, not ranges
			return nil
		}
		return []string{`""`, `"http"`, `"x/y"`, `"\u0007"`, `"https://h:1"`}
	case *field[discovery.Secret]:
		return nil // never shown
	default:
		return []string{"[]"}
	}
}

// spell writes the settings, each on a line of its own; at tells which is where.
func spell(chosen []chosenSetting) (text string, at map[int]int) {
	at = map[int]int{}
	var b strings.Builder
	line := 1
	put := func(s string) { b.WriteString(s + "\n"); line++ }
	var walk func(depth int, todo []int)
	walk = func(depth int, todo []int) {
		heads := []string{}
		inside := map[string][]int{}
		for _, i := range todo {
			c := chosen[i]
			if len(c.blocks) == depth {
				at[line] = i
				put(fmt.Sprintf("%s = %s", c.name, c.value))
				continue
			}
			h := c.blocks[depth]
			if inside[h] == nil {
				heads = append(heads, h)
			}
			inside[h] = append(inside[h], i)
		}
		for _, h := range heads {
			put(h + " {")
			if strings.HasPrefix(h, "service ") {
				put(`listen = "127.0.0.1:80"`)
			}
			walk(depth+1, inside[h])
			put("}")
		}
	}
	all := make([]int, len(chosen))
	for i := range all {
		all[i] = i
	}
	walk(0, all)
	if !strings.Contains(b.String(), "service ") {
		put(`service "x" { listen = "127.0.0.1:80" }`)
	}
	return b.String(), at
}

// TestBlameWithoutASuspect holds that an error that no setting explains is
// reported at the block, and does not hide the others of a joined error.
func TestBlameWithoutASuspect(t *testing.T) {
	s := &source{name: "f", bytes: []byte("block {\n x = 1\n}")}
	l := &loader{byName: map[string]*source{"f": s}}
	x := 5
	g := given{name: "x", dest: count(&x), in: &instance{}}
	x = 7
	g.at.Filename, g.at.Start.Line = "f", 2
	sec := &section{given: []given{g}}
	sec.header.Filename, sec.header.Start.Line = "f", 1
	l.blame(sec, func() error {
		err := errors.New("the moon is full")
		if x != 5 {
			return errors.Join(err, fmt.Errorf("x is %d", x))
		}
		return err
	})
	if len(l.problems) != 2 || l.problems[0].Message != "the moon is full" || l.problems[0].Line != 1 || l.problems[1].Line != 2 {
		t.Errorf("%+v", l.problems)
	}
}
