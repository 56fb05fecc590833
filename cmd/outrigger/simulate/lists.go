package simulate

import (
	"cmp"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxList bounds a list of loads, rates or limits: each entry multiplies the
// runs, and a table of more is read by nobody.
const maxList = 20

// ParseLoads reads loads as shares of the capacity, "0.5,0.7,0.9" or "50%,70%",
// and sorts them.
func ParseLoads(text string) ([]float64, error) {
	loads, err := parseList(text, func(s string) (float64, error) { return parseShare(s, 0.01, 3) })
	if err != nil {
		return nil, fmt.Errorf("a load %w; it is a share of the fleet's capacity, as in 0.5,0.7,0.9", err)
	}
	slices.Sort(loads)
	return loads, nil
}

// ParseRates reads "4000/s,6000/s", requests a second of the whole fleet, and
// sorts them.
func ParseRates(text string) ([]float64, error) {
	rates, err := parseList(text, func(s string) (float64, error) {
		return parseNumber(strings.TrimSuffix(s, "/s"), 0.1, 1e7)
	})
	if err != nil {
		return nil, fmt.Errorf("a rate %w; write requests a second, as in 4000/s", err)
	}
	slices.Sort(rates)
	return rates, nil
}

// ParseLimits reads values of max_in_flight, "0,8,16,32"; 0 is no limit and is
// sorted to the end.
func ParseLimits(text string) ([]int, error) {
	limits, err := parseList(text, func(s string) (int, error) { return parseCount(s, 0, 1e6) })
	if err != nil {
		return nil, fmt.Errorf("a limit %w; write values of max_in_flight, as in 0,8,16,32", err)
	}
	slices.SortFunc(limits, byLimit)
	return limits, nil
}

// byLimit orders values of max_in_flight; 0 is no limit and comes last.
func byLimit(a, b int) int {
	if a == 0 || b == 0 {
		return cmp.Compare(b, a)
	}
	return cmp.Compare(a, b)
}

// parseList reads different values with commas between them.
func parseList[T comparable](text string, parse func(string) (T, error)) ([]T, error) {
	var list []T
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		v, err := parse(part)
		switch {
		case err != nil:
			return nil, err
		case slices.Contains(list, v):
			return nil, fmt.Errorf("of %s is there twice", part)
		case len(list) == maxList:
			return nil, fmt.Errorf("too many: %d are the most", maxList)
		}
		list = append(list, v)
	}
	return list, nil
}

// ParseShare reads "20%" or "0.2", 0 to 1.
func ParseShare(text string) (float64, error) { return parseShare(text, 0, 1) }

func parseShare(text string, low, high float64) (float64, error) {
	number, percent := strings.CutSuffix(text, "%")
	if !percent {
		return parseNumber(text, low, high)
	}
	v, err := parseNumber(number, low*100, high*100)
	if err != nil {
		return 0, fmt.Errorf("%w percent", err)
	}
	return v / 100, nil
}

func parseCount(text string, low, high int) (int, error) {
	n, err := strconv.Atoi(text)
	switch {
	case err != nil:
		return 0, fmt.Errorf("is %q, not a whole number", text)
	case n < low || n > high:
		return 0, fmt.Errorf("is %d, allowed are %d to %d", n, low, high)
	}
	return n, nil
}

// plainNumber is what a person writes; ParseFloat takes NaN, hexadecimal and
// exponents besides.
var plainNumber = regexp.MustCompile(`^[0-9]*\.?[0-9]+$`)

func parseNumber(text string, low, high float64) (float64, error) {
	v, err := strconv.ParseFloat(text, 64)
	switch {
	case err != nil || !plainNumber.MatchString(text):
		return 0, fmt.Errorf("is %q, not a plain number", text)
	case v < low || v > high:
		return 0, fmt.Errorf("is %s, allowed are %s to %s", text, decimal(low), decimal(high))
	}
	return v, nil
}

func parseDuration(text string, low, high time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	switch {
	case err != nil:
		return 0, fmt.Errorf("is %q, not a duration such as 20ms or 5s", text)
	case d < low || d > high:
		return 0, fmt.Errorf("is %v, allowed are %v to %v", d, low, high)
	}
	return d, nil
}

// decimal writes v as parseNumber reads it, never with an exponent.
func decimal(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

// percent writes a share as ParseShare reads it.
func percent(share float64) string { return decimal(math.Round(share*1e8)/1e6) + "%" }
