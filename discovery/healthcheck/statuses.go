package healthcheck

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// statuses are the ranges of those that an answer may have.
type statuses []statusRange

type statusRange struct{ low, high int }

// parseStatuses reads "204" and "200-399".
func parseStatuses(list []string) (statuses, error) {
	if len(list) == 0 {
		return nil, errors.New("statuses is empty: no answer would do")
	}
	if len(list) > 100 {
		return nil, fmt.Errorf("statuses has %d entries, at most 100 can be", len(list))
	}
	all := make(statuses, 0, len(list))
	for _, s := range list {
		first, last, isRange := strings.Cut(s, "-")
		if !isRange {
			last = first
		}
		low, ok1 := parseStatus(first)
		high, ok2 := parseStatus(last)
		if !ok1 || !ok2 || low > high {
			return nil, fmt.Errorf("statuses: %.80q is neither a status of 200 to 599 nor a range of them as \"200-399\"", s)
		}
		all = append(all, statusRange{low, high})
	}
	return all, nil
}

func parseStatus(s string) (int, bool) {
	if len(s) != 3 {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 16)
	return int(n), err == nil && n >= 200 && n <= 599
}

func (s statuses) has(status int) bool {
	for _, r := range s {
		if r.low <= status && status <= r.high {
			return true
		}
	}
	return false
}
