package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"outrigger/sidecar/admin"
)

// adminAddr reads a flag -addr. Without a host it is this machine.
func adminAddr(text string) (string, error) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return "", fmt.Errorf("-addr %q is not \"ADDR:PORT\": %w", text, err)
	}
	if host == "" {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port), nil
}

// Bounds of an answer. Of 10,000 endpoints the status comes to about 8 MiB, and an
// explanation of them all to some 20 MiB.
const (
	statusTimeout = 10 * time.Second
	statusMaxBody = 32 << 20
)

// askAdmin asks a sidecar's admin listener, decodes the answer into doc and
// returns it as it came, but fit for a terminal.
func askAdmin(ctx context.Context, addr, path string, query url.Values, doc any) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	u := url.URL{Scheme: "http", Host: addr, Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	tr := &http.Transport{DisableKeepAlives: true} // and no proxy: it is this machine, or a forwarded port of it
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("no sidecar answers at %s: %w\nIs it running, and is this the listen address of its admin block? -addr ADDR:PORT asks elsewhere", addr, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, statusMaxBody+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("the answer of %s broke off: %w", addr, err)
	case len(body) > statusMaxBody:
		return nil, fmt.Errorf("the answer of %s is longer than %d MiB", addr, statusMaxBody>>20)
	case resp.StatusCode != http.StatusOK:
		return nil, adminRefused(addr, path, resp, body)
	}
	if err := json.Unmarshal(body, doc); err != nil {
		return nil, fmt.Errorf("what answers at %s is no sidecar's admin listener: its %s is not what a sidecar says: %w", addr, path, err)
	}
	return admin.Printable(body), nil
}

func adminRefused(addr, path string, resp *http.Response, body []byte) error {
	var doc admin.ErrorDoc
	if json.Unmarshal(body, &doc) == nil && doc.Error != "" {
		return errors.New("the sidecar at " + addr + " says: " + statusClean(doc.Error, 1000))
	}
	return fmt.Errorf("%s answers %s with %s: %s\nIs this the listen address of a sidecar's admin block?",
		addr, path, statusClean(resp.Status, 100), statusClean(strings.TrimSpace(string(body)), 200))
}
