package admin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const index = `outrigger admin listener

/healthz                  200 while the process runs
/readyz                   200 once the first discovery of every service was answered, 503 before, and when draining
/metrics                  Prometheus metrics
/v1/status                every service and endpoint as JSON
/v1/status?service=NAME   one service
/v1/explain?service=NAME  how a pick made now is made: &key=TEXT (or &hash=NUMBER), &tried=ID,ID (or tried=ID&tried=ID),
                          &top=1000 candidates; or what the last ones were: &last=50, 256 at most
`

// routes is the handler of everything. Patterns with GET take HEAD too, and
// the mux answers other methods 405 with an Allow header.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { text(w, http.StatusOK, index) })
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { text(w, http.StatusOK, "ok\n") })
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.HandleFunc("GET /v1/status", s.bounded(s.status))
	mux.HandleFunc("GET /v1/explain", s.bounded(s.explain))
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{
		ErrorLog:            s.o.Log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Warn}),
		ErrorHandling:       promhttp.ContinueOnError, // one odd endpoint must not hide the others
		Registry:            s.registry,
		MaxRequestsInFlight: maxScrapes,
	}))
	return guarded(mux)
}

// bounded refuses what would be one document too many at once. The slot is kept
// until the answer is written, for as long is it in memory.
func (s *Server) bounded(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case s.documents <- struct{}{}:
			defer func() { <-s.documents }()
			next(w, r)
		default:
			w.Header().Set("Retry-After", "1")
			s.json(w, http.StatusServiceUnavailable, ErrorDoc{
				Error: fmt.Sprintf("%d such questions are being answered, and no more are at once; ask again", maxDocuments),
			})
		}
	}
}

func text(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(body)) // the client's loss
}

func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	if s.o.Draining() {
		text(w, http.StatusServiceUnavailable, "draining\n")
		return
	}
	if names := s.waiting(); len(names) > 0 {
		text(w, http.StatusServiceUnavailable,
			"waiting for the first answer of discovery about: "+strings.Join(names, ", ")+"\n")
		return
	}
	text(w, http.StatusOK, "ready\n")
}

// waiting names the services that discovery has told nothing about yet.
func (s *Server) waiting() (names []string) {
	for _, sv := range s.o.Services {
		if !sv.Status().Seen {
			names = append(names, sv.Name)
		}
	}
	return names
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	services := s.o.Services
	if q := r.URL.Query(); q.Has("service") {
		sv := s.service(q.Get("service"))
		if sv == nil {
			s.json(w, http.StatusNotFound, s.unknown(q.Get("service")))
			return
		}
		services = []Service{*sv}
	}
	s.json(w, http.StatusOK, s.describe(services))
}

// service returns the service of that name, nil if there is none.
func (s *Server) service(name string) *Service {
	for i := range s.o.Services {
		if s.o.Services[i].Name == name {
			return &s.o.Services[i]
		}
	}
	return nil
}

func (s *Server) names() []string {
	names := make([]string, 0, len(s.o.Services))
	for _, sv := range s.o.Services {
		names = append(names, sv.Name)
	}
	return names
}

func (s *Server) unknown(name string) ErrorDoc {
	known := s.names()
	return ErrorDoc{
		Error: fmt.Sprintf("there is no service %q; known are: %s", name, strings.Join(known, ", ")),
		Known: known,
	}
}

// json answers with a document, indented for those who read it with curl.
func (s *Server) json(w http.ResponseWriter, status int, doc any) {
	body, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		s.o.Log.Error("the status cannot be written as JSON", "error", err)
		text(w, http.StatusInternalServerError, "the status cannot be written as JSON; the sidecar's log says why\n")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(Printable(body), '\n')) // the client's loss
}

// Printable returns a JSON text that means the same and holds nothing that a
// terminal obeys or hides: JSON escapes only the control characters below
// U+0020, and names from the catalog end on people's screens. Line breaks and
// tabs between values stay. Bytes that are not UTF-8 become U+FFFD.
func Printable(text []byte) []byte {
	harmless := func(r rune) bool { return r == '\n' || r == '\t' || unicode.IsPrint(r) }
	var b bytes.Buffer
	b.Grow(len(text))
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		text = text[n:]
		switch {
		case harmless(r):
			b.WriteRune(r)
		case r > 0xffff:
			r -= 0x10000
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.Bytes()
}
