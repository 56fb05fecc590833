package publish

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/hashicorp/consul/api"
)

// Reports are read where the instances are; each datacenter has a KV store of its own.
func TestDatacenter(t *testing.T) {
	for _, dc := range []string{"", "dc2"} {
		ctx, cancel := context.WithCancel(t.Context())
		asked := make(chan string, 1)
		srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			select {
			case asked <- r.URL.Path + " " + r.URL.Query().Get("dc"):
			default:
			}
		}))
		client, err := api.NewClient(&api.Config{Address: srv.URL})
		if err != nil {
			t.Fatal(err)
		}
		w, err := NewWatcher("web", DefaultWatchConfig(), WatchEnv{Client: client, Datacenter: dc})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() { done <- w.Run(ctx, func(string, []byte, bool) {}) }()
		if got, want := <-asked, "/v1/kv/"+DefaultWatchConfig().Prefix+"/web/ "+dc; got != want {
			t.Errorf("asked for %q, want %q", got, want)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		srv.Close()
	}
}
