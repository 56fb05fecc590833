package agentstats

import (
	"context"
	"net"
	"strings"
	"testing"
)

func TestAgentAddr(t *testing.T) {
	for _, c := range []struct{ value, instance, want string }{
		{"7070", "10.0.0.5:80", "10.0.0.5:7070"},
		{"7070", "10.0.0.5", "10.0.0.5:7070"},
		{"7070", "[2001:db8::1]:80", "[2001:db8::1]:7070"},
		{"7070", "2001:db8::1", "[2001:db8::1]:7070"},
		{"7070", "web-1.example_x.internal:80", "web-1.example_x.internal:7070"},
		{"10.0.0.9:7070", "10.0.0.5:80", "10.0.0.9:7070"},
		{"[2001:db8::9]:1", "10.0.0.5:80", "[2001:db8::9]:1"},
		{"agent.internal:7070", "10.0.0.5:80", "agent.internal:7070"},
		{"127.0.0.1:7070", "127.0.0.1:80", "127.0.0.1:7070"},
		{"127.0.0.1:7070", "localhost:80", "127.0.0.1:7070"},
		{"localhost:7070", "127.0.0.1:80", "localhost:7070"},
		{"169.254.1.2:7070", "169.254.1.1:80", "169.254.1.2:7070"},

		{"", "10.0.0.5:80", ""},
		{"0", "10.0.0.5:80", ""},
		{"65536", "10.0.0.5:80", ""},
		{"+80", "10.0.0.5:80", ""},
		{"http", "10.0.0.5:80", ""},
		{"10.0.0.9", "10.0.0.5:80", ""},
		{":7070", "10.0.0.5:80", ""},
		{"a:b:c", "10.0.0.5:80", ""},
		{"10.0.0.9:http", "10.0.0.5:80", ""},
		{"0.0.0.0:80", "10.0.0.5:80", ""},
		{"[::]:80", "10.0.0.5:80", ""},
		{"224.0.0.1:80", "10.0.0.5:80", ""},
		{"255.255.255.255:80", "10.0.0.5:80", ""},
		{"127.0.0.1:8500", "10.0.0.5:80", ""},
		{"[::1]:8500", "10.0.0.5:80", ""},
		{"[::ffff:127.0.0.1]:8500", "10.0.0.5:80", ""},
		{"localhost:8500", "10.0.0.5:80", ""},
		{"LocalHost:8500", "web.internal:80", ""},
		{"127.1:8500", "10.0.0.5:80", ""},
		{"127.0.0.08:8500", "10.0.0.5:80", ""},
		{"2130706433:8500", "10.0.0.5:80", ""},
		{"0x7f000001:8500", "10.0.0.5:80", ""},
		{"0x7f.1.:8500", "10.0.0.5:80", ""},
		{"169.254.169.254:80", "10.0.0.5:80", ""},
		{"[fe80::1%eth0]:80", "[fe80::2]:80", ""},
		{"a b:80", "10.0.0.5:80", ""},
		{"a\r\nx:80", "10.0.0.5:80", ""},
		{"-a:80", "10.0.0.5:80", ""},
		{"a..b:80", "10.0.0.5:80", ""},
		{strings.Repeat("a.", 127) + "a:80", "10.0.0.5:80", ""},
		{"7070", "", ""},
		{"7070", "evil host", ""},
	} {
		got, ok, err := AgentAddr(map[string]string{MetaKey: c.value, "other": "x"}, c.instance)
		if got != c.want || ok != (c.want != "") || (err == nil) != ok {
			t.Errorf("%q of the instance at %q: got %q, %v, %v, want %q", c.value, c.instance, got, ok, err, c.want)
		}
	}
	if got, ok, err := AgentAddr(map[string]string{"other": "x"}, "10.0.0.5:80"); got != "" || ok || err != nil {
		t.Errorf("without the key: got %q, %v, %v", got, ok, err)
	}
}

// FuzzAgentAddr holds that an accepted address is one host and one port and leads to
// the loopback of the sidecar only for instances that are there themselves.
func FuzzAgentAddr(f *testing.F) {
	f.Add("7070", "10.0.0.5:80")
	f.Add("127.0.0.1:1", "10.0.0.5")
	f.Add("[::1]:1", "::1")
	f.Fuzz(func(t *testing.T, value, instance string) {
		addr, ok, err := AgentAddr(map[string]string{MetaKey: value}, instance)
		if ok == (err != nil) {
			t.Fatalf("ok %v and error %v", ok, err)
		}
		if !ok {
			return
		}
		host, port, err := net.SplitHostPort(addr)
		if err != nil || strings.ContainsAny(addr, " \r\n\t/@?#%\x00") {
			t.Fatalf("%q is no plain address: %v", addr, err)
		}
		if n, ok := parsePort(port); !ok || n < 1 {
			t.Fatalf("port %q", port)
		}
		if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() {
			own := instance
			if h, _, err := net.SplitHostPort(instance); err == nil {
				own = h
			}
			if ownIP := net.ParseIP(own); own != "localhost" && (ownIP == nil || !ownIP.IsLoopback()) {
				t.Fatalf("loopback %q for the instance at %q", addr, instance)
			}
		}
	})
}

// What a name resolves to is checked before it is dialled, except on the instance's
// own host.
func TestResolvedAddresses(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	name := "LocalHost:" + port // a name that resolves to a loopback address
	for backend, want := range map[string]bool{
		"10.0.0.5:80": false, "web.internal:80": false,
		"127.0.0.1:80": true, "localhost:80": true, "": true,
	} {
		p := NewPoller(DefaultPollConfig(), PollEnv{})
		p.SetTargets([]Target{{ID: "a", Addr: name, Backend: backend}})
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		conn, err := p.Dial(ctx, "a")
		cancel()
		if (err == nil) != want || err != nil && !strings.Contains(err.Error(), "loopback address for an instance that is elsewhere") {
			t.Errorf("instance at %q: %v", backend, err)
		}
		if err == nil {
			_ = conn.Close()
		}
	}
}
