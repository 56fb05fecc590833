package config

import (
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"
)

// A dest is where a setting's value goes: a variable in some package's Config.
type dest interface {
	// set reads a value of the file. A fault says what is wrong without
	// repeating the value.
	set(v value) *fault
	// text is the variable's value in HCL; a secret's is a placeholder.
	text() string
	// zero reports whether the variable has its type's zero value.
	zero() bool
	// reset gives the variable the value it had before set; undo reverts that.
	reset() (undo func())
	// hide gives the variable a value that is as wrong as can be and prints as
	// shown, "" if there is none.
	hide() (undo func(), shown string)
}

// fault is a value of the wrong form.
type fault struct {
	message string
	hint    string
	item    *value // the list item at fault; nil: the whole value
}

// field is a dest for one variable.
type field[T any] struct {
	p, def *T // def: the value when the table was made
	read   func(v value) (T, *fault)
	print  func(T) string
	none   func(T) bool
	hidden T
	shown  string
}

func (f *field[T]) set(v value) *fault {
	x, fault := f.read(v)
	if fault == nil {
		*f.p = x
	}
	return fault
}

func (f *field[T]) text() string { return f.print(*f.p) }
func (f *field[T]) zero() bool   { return f.none(*f.p) }

func (f *field[T]) reset() func() { return f.put(*f.def) }

func (f *field[T]) hide() (func(), string) {
	if f.shown == "" {
		return func() {}, ""
	}
	return f.put(f.hidden), f.shown
}

func (f *field[T]) put(x T) func() {
	old := *f.p
	*f.p = x
	return func() { *f.p = old }
}

func newField[T comparable](p *T, read func(value) (T, *fault), print func(T) string, hidden T) dest {
	def := *p
	var zero T
	return &field[T]{p: p, def: &def, read: read, print: print,
		none: func(x T) bool { return x == zero }, hidden: hidden, shown: fmt.Sprint(hidden)}
}

func newList[T any](p *[]T, item func(value) (T, *fault), print func(T) string, hidden T) dest {
	def := *p
	return &field[[]T]{
		p: p, def: &def,
		read: func(v value) ([]T, *fault) { return readList(v, item) },
		print: func(list []T) string {
			texts := make([]string, len(list))
			for i, x := range list {
				texts[i] = print(x)
			}
			return "[" + strings.Join(texts, ", ") + "]"
		},
		none:   func(list []T) bool { return len(list) == 0 },
		hidden: []T{hidden}, shown: fmt.Sprint(hidden),
	}
}

// readList returns nil for an empty list, so that it is the same as none.
func readList[T any](v value, item func(value) (T, *fault)) ([]T, *fault) {
	items, ok := v.v.([]value)
	if !ok {
		return nil, &fault{message: "must be a list", hint: "Write [...], with commas between the items."}
	}
	var list []T
	for i := range items {
		x, fault := item(items[i])
		if fault != nil {
			fault.item = &items[i]
			return nil, fault
		}
		list = append(list, x)
	}
	return list, nil
}

// Values that no range allows, for hide.
const (
	hiddenText   = "[redacted]"
	hiddenNumber = -987654321
)

func text(p *string) dest    { return newField(p, readText, quote, hiddenText) }
func texts(p *[]string) dest { return newList(p, readText, quote, hiddenText) }

func readText(v value) (string, *fault) {
	s, ok := v.v.(string)
	if !ok {
		return "", &fault{message: "must be text", hint: "Text goes in quotes."}
	}
	return s, nil
}

// quote writes a text as HCL reads it.
func quote(s string) string {
	return string(hclwrite.TokensForValue(cty.StringVal(s)).Bytes())
}

// choice is a text out of a list.
func choice(p *string, names []string) dest {
	return newField(p, func(v value) (string, *fault) { return readChoice(v, names) }, quote, hiddenText)
}

func readChoice(v value, names []string) (string, *fault) {
	s, f := readText(v)
	if f == nil && !slices.Contains(names, s) {
		f = &fault{message: "is not one of " + strings.Join(names, ", ")}
		if !v.outside {
			f.hint = didYouMean(s, names)
		}
	}
	return s, f
}

// secret is a text that is never printed.
func secret[S interface {
	~string
	fmt.Stringer // hides it
}](p *S) dest {
	read := func(v value) (S, *fault) {
		s, f := readText(v)
		if s == hiddenText {
			f = &fault{message: "is the placeholder of a secret", hint: `Put the secret, or better env("NAME") or file("PATH"), in its place.`}
		}
		return S(s), f
	}
	return newField(p, read, func(s S) string { return quote(s.String()) }, "")
}

// secretText is a secret in a plain string.
func secretText(p *string) dest {
	d := secret((*hidden)(p)).(*field[hidden])
	d.shown = ""
	return d
}

// hidden is a text that does not print.
type hidden string

func (s hidden) String() string {
	if s == "" {
		return ""
	}
	return hiddenText
}

func flag(p *bool) dest {
	read := func(v value) (bool, *fault) {
		if s, ok := v.v.(string); ok && v.outside && (s == "true" || s == "false") {
			return s == "true", nil
		}
		b, ok := v.v.(bool)
		if !ok {
			return false, &fault{message: "must be true or false"}
		}
		return b, nil
	}
	d := newField(p, read, strconv.FormatBool, false).(*field[bool])
	d.shown = "" // no value of a bool is out of range
	return d
}

func count(p *int) dest    { return newField(p, readCount, strconv.Itoa, hiddenNumber) }
func counts(p *[]int) dest { return newList(p, readCount, strconv.Itoa, hiddenNumber) }

func readCount(v value) (int, *fault) {
	bad := &fault{message: "must be a whole number", hint: "Without quotes and unit."}
	if s, ok := v.v.(string); ok && v.outside { // the environment has only texts
		n, err := strconv.Atoi(s)
		if err != nil {
			return 0, bad
		}
		return n, nil
	}
	n, ok := v.v.(*big.Float)
	if !ok || !n.IsInt() {
		return 0, bad
	}
	f, _ := n.Float64() // first, as Int64 of 1e999999999 would fill memory
	if math.Abs(f) > min(1<<53, math.MaxInt) {
		return 0, &fault{message: "is a number far out of range"}
	}
	return int(f), nil
}

// ratio is a number that need not be whole.
func ratio(p *float64) dest {
	read := func(v value) (float64, *fault) {
		bad := &fault{message: "must be a number", hint: "A share is written like 0.5, without quotes."}
		var f float64
		switch x := v.v.(type) {
		case *big.Float:
			f, _ = x.Float64()
		case string:
			var err error
			if f, err = strconv.ParseFloat(x, 64); err != nil || !v.outside {
				return 0, bad
			}
		default:
			return 0, bad
		}
		if math.IsInf(f, 0) || math.IsNaN(f) {
			return 0, bad
		}
		return f, nil
	}
	return newField(p, read, func(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) }, hiddenNumber)
}

func duration(p *time.Duration) dest {
	read := func(v value) (time.Duration, *fault) {
		s, ok := v.v.(string)
		d, err := time.ParseDuration(s)
		if !ok || err != nil {
			return 0, &fault{message: "must be a duration",
				hint: `In quotes and with a unit (ms, s, m, h), like "250ms", "30s" or "1h30m".`}
		}
		return d, nil
	}
	print := func(d time.Duration) string {
		s := d.String()
		if strings.HasSuffix(s, "m0s") {
			s = strings.TrimSuffix(s, "0s")
		}
		if strings.HasSuffix(s, "h0m") {
			s = strings.TrimSuffix(s, "0m")
		}
		return quote(s)
	}
	return newField(p, read, print, hiddenNumber)
}

// size is a number of bytes.
func size[N int | int64](p *N) dest {
	read := func(v value) (N, *fault) {
		s, ok := v.v.(string)
		n, good := parseSize(s)
		if !ok || !good || int64(N(n)) != n {
			return 0, &fault{message: "must be a size", hint: `In quotes and with a unit (B, KiB, MiB, GiB; 1 KiB is 1024 bytes), like "8KiB".`}
		}
		return N(n), nil
	}
	return newField(p, read, func(n N) string { return quote(sizeText(int64(n))) }, hiddenNumber)
}

func sizeUnits() []string { return []string{"B", "KiB", "MiB", "GiB"} }

func parseSize(s string) (int64, bool) {
	digits := strings.TrimRight(s, "BKMGi")
	unit := slices.Index(sizeUnits(), s[len(digits):])
	if unit < 0 || len(digits) > 9 {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	return int64(n) << (10 * unit), err == nil
}

// sizeText writes n in the largest unit that leaves a whole number.
func sizeText(n int64) string {
	units := sizeUnits()
	for n != 0 && n%1024 == 0 && len(units) > 1 {
		n, units = n/1024, units[1:]
	}
	return strconv.FormatInt(n, 10) + units[0]
}

// toggles is a list of names, each of which sets a bool.
type toggles struct {
	names []string
	on    []*bool
	def   []bool
}

func newToggles(names []string, on ...*bool) dest {
	t := &toggles{names: names, on: on}
	t.def = t.get()
	return t
}

func (t *toggles) get() []bool {
	list := make([]bool, len(t.on))
	for i, p := range t.on {
		list[i] = *p
	}
	return list
}

func (t *toggles) put(list []bool) func() {
	old := t.get()
	for i, p := range t.on {
		*p = list[i]
	}
	return func() { t.put(old) }
}

func (t *toggles) set(v value) *fault {
	names, f := readList(v, func(v value) (string, *fault) {
		if n, ok := v.v.(*big.Float); ok { // a name may be a number
			v.v = n.Text('f', -1)
		}
		return readChoice(v, t.names)
	})
	if f != nil {
		return f
	}
	for i, p := range t.on {
		*p = slices.Contains(names, t.names[i])
	}
	return nil
}

func (t *toggles) text() string {
	var names []string
	for i, p := range t.on {
		if *p {
			names = append(names, quote(t.names[i]))
		}
	}
	return "[" + strings.Join(names, ", ") + "]"
}

func (t *toggles) zero() bool             { return !slices.Contains(t.get(), true) }
func (t *toggles) reset() func()          { return t.put(t.def) }
func (t *toggles) hide() (func(), string) { return func() {}, "" }
