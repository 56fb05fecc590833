package admin

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"outrigger/picker"
	"outrigger/sidecar/balance"
)

// Bounds of top, which is how many candidates of each policy are shown.
const (
	defaultTop = 1000  // 2 MiB or so; nobody reads more
	maxTop     = 10000 // the largest services; `outrigger explain` reads 32 MiB
)

// explain answers /v1/explain.
func (s *Server) explain(w http.ResponseWriter, r *http.Request) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		s.json(w, http.StatusBadRequest, ErrorDoc{Error: "the query of the URL cannot be read: " + err.Error()})
		return
	}
	if err := checkExplain(q); err != nil {
		s.json(w, http.StatusBadRequest, ErrorDoc{Error: err.Error(), Known: s.names()})
		return
	}
	sv := s.service(q.Get("service"))
	switch {
	case sv == nil:
		s.json(w, http.StatusNotFound, s.unknown(q.Get("service")))
	case q.Has("last"):
		n, _ := strconv.Atoi(q.Get("last")) // checked
		s.json(w, http.StatusOK, sv.last(n, s.o.Now()))
	case sv.Explain == nil:
		s.json(w, http.StatusNotFound, ErrorDoc{Error: fmt.Sprintf("service %q cannot explain its picks", sv.Name)})
	default:
		question, err := sv.question(q)
		var x balance.Explanation
		if err == nil {
			x, err = sv.Explain(question)
		}
		if err != nil {
			s.json(w, http.StatusBadRequest, ErrorDoc{Error: err.Error()})
			return
		}
		top, _ := strconv.Atoi(cmp.Or(q.Get("top"), strconv.Itoa(defaultTop))) // checked
		s.json(w, http.StatusOK, describeExplanation(&x, top, s.o.Now()))
	}
}

// checkExplain says what is wrong with a question and what to do.
func checkExplain(q url.Values) error {
	for _, name := range slices.Sorted(maps.Keys(q)) {
		switch {
		case !slices.Contains([]string{"service", "key", "hash", "tried", "top", "last"}, name):
			return fmt.Errorf("there is no parameter %q; allowed are service, key, hash, tried, top and last", name)
		case len(q[name]) > 1 && name != "tried":
			return fmt.Errorf("%s is there twice", name)
		}
	}
	switch {
	case q.Get("service") == "":
		return errors.New("service is missing: ask /v1/explain?service=NAME")
	case q.Has("key") && q.Has("hash"):
		return errors.New("key is hashed and hash is the result, so one of them is enough; leave the other out")
	case q.Has("top") && !within(q.Get("top"), maxTop):
		return fmt.Errorf("top is %q, allowed are 1 to %d", q.Get("top"), maxTop)
	case !q.Has("last"):
		return nil
	case q.Has("key") || q.Has("hash") || q.Has("tried") || q.Has("top"):
		return errors.New("last lists what was decided, so key, hash, tried and top have no meaning beside it; leave them out")
	case !within(q.Get("last"), balance.MaxLast):
		return fmt.Errorf("last is %q, allowed are 1 to %d", q.Get("last"), balance.MaxLast)
	}
	return nil
}

// within reports whether text is a number of 1 to most.
func within(text string, most int) bool {
	n, err := strconv.Atoi(text)
	return err == nil && n >= 1 && n <= most
}

// question reads a checked query. A key is always a text, hashed as the service
// hashes what it takes from a request.
func (sv *Service) question(q url.Values) (out balance.Question, err error) {
	if key := q.Get("key"); key != "" {
		if sv.Key == nil {
			out.Hash = picker.Hash(key)
		} else if out.Hash, err = sv.Key(key); err != nil {
			return out, fmt.Errorf("key: %w", err)
		}
	}
	if hash := q.Get("hash"); hash != "" {
		digits, base := hash, 10
		if hex, ok := strings.CutPrefix(hash, "0x"); ok {
			digits, base = hex, 16
		}
		if out.Hash, err = strconv.ParseUint(digits, base, 64); err != nil {
			return out, fmt.Errorf("hash is %.40q, which is no number of 64 bits like 12345 or 0xff; a text is a key", hash)
		}
	}
	for _, list := range q["tried"] {
		for id := range strings.SplitSeq(list, ",") {
			if id = strings.TrimSpace(id); id != "" {
				out.Tried = append(out.Tried, id)
			}
		}
	}
	return out, nil
}
