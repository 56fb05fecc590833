package config

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// web wraps lines into a valid service block; they begin at line 3.
func web(lines string) string {
	return "service \"web\" {\n  listen = \"127.0.0.1:8080\"\n" + lines + "\n}\n"
}

func TestProblems(t *testing.T) {
	const ok = "service \"ok\" { listen = \":0\" }\n"
	for _, c := range []struct {
		name, text string
		wants      []string // see wantProblems
	}{
		{"empty", "", []string{`there is no service block|Write service "NAME"`}},
		{"comment", "# nothing\n", []string{"there is no service block"}},
		{"no listen", "\nservice \"web\" {\n}\n", []string{`f.hcl:2:1: service "web" has no listen|   2 | service "web" {|     | ^^^^^^^^^^^^^|It has no default`}},

		// Names.
		{"typo", web(`  lisen = "x"`), []string{`f.hcl:3:3: unknown setting "lisen" in service "web"|   3 |   lisen = "x"|     |   ^^^^^|Did you mean "listen"?|Allowed here: listen, listen_mode, slow_start, panic_threshold, discover, policy,`}},
		{"typo in a nested block", web("  breaker {\n    capacity { min_queue = 3 }\n  }"), []string{`f.hcl:4:16: unknown setting "min_queue" in service "web" breaker capacity|Did you mean "min_queued"?`}},
		{"dashes and case", web("timeouts {\nfirst-byte = \"1s\"\n}"), []string{`f.hcl:4:1: unknown setting "first-byte"|Did you mean "first_byte"?`}},
		{"longer name", web("limits {\nmax_connections = 5\n}"), []string{`f.hcl:4:1: unknown|Did you mean "connections"?`}},
		{"block typo", "servce \"x\" {}\n" + ok, []string{`f.hcl:1:1: unknown block "servce"|Did you mean "service"?`}},
		{"wrong block", web("  connect = \"1s\"\n  idle = \"1s\""), []string{
			`f.hcl:3:3: unknown setting "connect"|It belongs in the block timeouts.`,
			`f.hcl:4:3: unknown setting "idle"|It belongs in the block timeouts or pool.`}},
		{"from the root", "tags = [\"x\"]\n" + ok, []string{`f.hcl:1:1: unknown setting "tags"|It belongs in the block service discover fallback or service discover.`}},
		{"from a service to the root", web(`consul {}`), []string{`f.hcl:3:1: unknown block "consul"|Allowed here: listen`}},
		{"far off", web(`qwertyuiop = 1`), []string{`f.hcl:3:1: unknown setting "qwertyuiop"|Allowed here`}},
		{"an agent's block", "agent {}\n" + ok, []string{"f.hcl:1:1: unknown block \"agent\"|`outrigger agent -config FILE`"}},
		{"block for setting", web(`listen {}`), []string{`f.hcl:3:1: "listen" is no block|Write listen = ...`}},
		{"setting for block", web("policy = \"p2c\"\nretry = {}"), []string{
			`f.hcl:3:1: "policy" is a block|Write policy "NAME" { ... }, without =.`,
			`f.hcl:4:1: "retry" is a block|Write retry { ... }`}},
		{"labels", "service {}\nservice \"a\" \"b\" {}\nlog \"x\" {}\n" + ok, []string{
			`f.hcl:1:1: a block service has one name`, `f.hcl:2:1: a block service has one name`, `f.hcl:3:1: a block log has no name|Write log { ... }.`}},
		{"service name", "service \"\" { listen = \":0\" }\nservice \"a/b\" { listen = \":0\" }\n", []string{
			`f.hcl:1:9: "" is no name for a service`, `f.hcl:2:9: "a/b" is no name`}},
		{"policy name", web("policy \"leastconn\" {\n  whatever = 1\n}"), []string{`f.hcl:3:8: policy is not one of least_conn, resource, p2c, peak_ewma, round_robin, random, consistent_hash|Did you mean "least_conn"?`}},
		{"policy's setting", web(`policy "p2c" { samples = 3 }`), []string{`f.hcl:3:16: policy "p2c" has no setting "samples"|It is one of policy "resource".`}},
		{"shadow name", web(`shadow "leastconn" {}`), []string{`f.hcl:3:8: shadow is not one of least_conn, resource, p2c,|Did you mean "least_conn"?`}},
		{"shadow's setting", web(`shadow "p2c" { samples = 3 }`), []string{`f.hcl:3:16: shadow "p2c" has no setting "samples"|It is one of shadow "resource".`}},
		{"shadow's range", web("policy \"resource\" { samples = 3 }\nshadow \"peak_ewma\" { decay = \"1ms\" }"), []string{`f.hcl:4:30: decay is 1ms, allowed are 100ms to 10m (in the shadow)`}},
		{"both out of range", web("policy \"peak_ewma\" { decay = \"2ms\" }\nshadow \"resource\" { samples = 99 }"), []string{`f.hcl:3:30: decay is 2ms`, `f.hcl:4:31: samples is 99, allowed are 2 to 32 (in the shadow)`}},
		{"shadow of itself", web("policy \"p2c\" {}\nshadow \"p2c\" {}"), []string{`f.hcl:4:8: shadow is "p2c", as is the policy: nothing to compare; name another, or leave shadow out`}},
		{"shadow of the default", web(`shadow "least_conn" {}`), []string{`f.hcl:3:8: shadow is "least_conn", as is the policy`}},
		{"two shadows", web("shadow \"p2c\" {}\nshadow \"random\" {}"), []string{`f.hcl:4:1: shadow is there twice`}},
		{"policy typo", web(`policy "resource" { sample = 3 }`), []string{`f.hcl:3:21: unknown setting "sample" in service "web" policy "resource"|Did you mean "samples"?`}},

		// Twice.
		{"setting twice", web("  listen = \":1\""), []string{`f.hcl:3:3: attribute redefined|f.hcl:2`}},
		{"block twice", web("retry {}\nretry {}"), []string{`f.hcl:4:1: retry is there twice|It is already at f.hcl:3:1.`}},
		{"base block twice", "log {}\n" + ok + "log {}\n", []string{`f.hcl:3:1: log is there twice|f.hcl:1:1`}},
		{"service twice", ok + ok, []string{`f.hcl:2:1: service "ok" is there twice|f.hcl:1:1`}},
		{"address twice", "service \"a\" { listen = \":80\" }\nservice \"b\" { listen = \":80\" }\n", []string{`f.hcl:2:24: service "b" listens on ":80", as does service "a"|f.hcl:1:24`}},
		{"admin's address", "service \"a\" { listen = \"127.0.0.1:9911\" }\n", []string{`f.hcl:1:24: service "a" listens on "127.0.0.1:9911", as does admin (by default)`}},
		{"admin's address moved", "service \"a\" { listen = \"127.0.0.1:91\" }\nadmin { listen = \"127.0.0.1:91\" }\n", []string{`f.hcl:2:18: admin listens on`}},

		// Forms.
		{"forms", web(strings.Join([]string{
			`discover {`, `  tags = "blue"`, `  only_passing = "yes"`, `  near = 5`, `  service = true`, `}`,
			`capacity {`, `  max_in_flight = "10"`, `  queue {`, `    length = 1.5`, `    timeout = 5`, `  }`, `}`,
			`retry {`, `  on = ["reset", "conect_failure", 3]`, `  attempts = 1e300`, `  budget { ratio = "0.5" }`, `}`,
			`limits {`, `  line = 8192`, `  head = "8KB"`, `}`, `timeouts {`, `  idle = "1d"`, `  head = null`, `}`}, "\n")), []string{
			`f.hcl:4:10: tags must be a list|Write [...]`,
			`f.hcl:5:18: only_passing must be true or false`,
			`f.hcl:6:10: near must be text`,
			`f.hcl:7:13: service must be text`,
			`f.hcl:10:19: max_in_flight must be a whole number|Without quotes`,
			`f.hcl:12:14: length must be a whole number`,
			`f.hcl:13:15: timeout must be a duration|"250ms"`,
			`f.hcl:17:18: on is not one of connect_failure, refused, reset, timeout, 500, 502, 503, 504, retriable_4xx|Did you mean "connect_failure"?`,
			`f.hcl:18:14: attempts is a number far out of range`,
			`f.hcl:19:20: ratio must be a number`,
			`f.hcl:22:10: line must be a size|"8KiB"`,
			`f.hcl:23:10: head must be a size|KiB`,
			`f.hcl:26:10: idle must be a duration`,
			`f.hcl:27:10: null is no value here`,
		}},
		{"no quotes", web(`timeouts { idle = abc }`), []string{`f.hcl:3:19: there are no variables here|A text goes in quotes`}},
		{"computing", web("timeouts {\nidle = true ? \"1s\" : \"2s\"\nhead = \"${1 + 1}s\"\ntunnel = \"${1}s\"\n}\npool { size = 1 + 1 }"), []string{
			`f.hcl:4:8: nothing is computed here`, `f.hcl:5:11: nothing is computed here`, `f.hcl:6:13: only text can be put into a text`, `f.hcl:8:15: nothing is computed here`}},
		{"for", web(`discover { tags = [for x in ["a"]: x] }`), []string{`f.hcl:3:19: nothing is computed here`}},

		// Ranges, which only the packages know.
		{"many ranges", "grace = \"2h\"\nconsul {\n  wait = \"1ms\"\n  rate_burst = 0\n  backoff_max = \"1ms\"\n}\nadmin { listen = \"0.0.0.0:1\" }\n" + ok, []string{
			`f.hcl:1:9: grace is 2h0m0s, allowed are 0s to 1h`, `f.hcl:3:10: wait is 1ms, allowed are`,
			`f.hcl:4:16: rate_burst is 0, allowed are 1 to 100`, `f.hcl:5:17: backoff_max is 1ms`, `f.hcl:7:18: admin listen "0.0.0.0:1" is not a loopback`}},
		{"many in one service", web("breaker {\n window = \"1s\"\n bucket = \"1us\"\n failure_ratio = 7\n capacity {\n window = \"1ms\"\n min_queued = 0\n }\n}\ntimeouts {\n connect = \"1ms\"\n idle = \"99h\"\n}\nretry {\n attempts = 11\n}\npool {\n size = -1\n}"), []string{
			`f.hcl:5:11: bucket is 1µs`, `f.hcl:6:18: failure_ratio is 7`, `f.hcl:8:11: capacity: window is 1ms`, `f.hcl:9:15: capacity: min_queued is 0`,
			`f.hcl:13:12: timeout connect is 1ms`, `f.hcl:14:9: timeout idle is 99h0m0s`, `f.hcl:17:13: retry attempts is 11`, `f.hcl:20:9: pool size is -1`}},
		{"a pair, one wrong", web("breaker {\n base_ejection = \"60s\"\n}"), []string{`f.hcl:4:18: base_ejection is 1m0s, allowed are 10ms to max_ejection (30s)`}},
		{"a pair, both set", web("breaker {\n base_ejection = \"60s\"\n max_ejection = \"20s\"\n}"), []string{`f.hcl:4:18: base_ejection is 1m0s`}},
		{"a pair, the default is at odds", web("breaker {\n max_ejection = \"500ms\"\n}"), []string{`f.hcl:4:17: base_ejection is 1s, allowed are 10ms to max_ejection (500ms)`}},
		{"a good pair beside an error", web("breaker {\n base_ejection = \"60s\"\n max_ejection = \"120s\"\n min_requests = 0\n}"), []string{`f.hcl:6:17: min_requests is 0`}},
		{"no error that comes of a default", web("breaker {\n base_ejection = \"60s\"\n max_ejection = \"2h\"\n}"), []string{`f.hcl:5:17: max_ejection is 2h0m0s, allowed is up to 1h`}},
		{"no error that comes of a malformed one", web("breaker {\n base_ejection = \"60s\"\n max_ejection = 120\n}"), []string{`f.hcl:5:17: max_ejection must be a duration`}},
		{"both limits", web("limits {\n line = \"1B\"\n head = \"1MiB\"\n}"), []string{`f.hcl:4:9: limit line is 1 bytes, allowed are 256 and up`, `f.hcl:5:9: limit head is 1048576 bytes, allowed are 1024 to 32768`}},
		{"statuses", web("breaker {\n failure_statuses = [502, 999]\n}"), []string{`f.hcl:4:21: failure_statuses has 999`}},
		{"tags", web("discover {\n tags = [\"\"]\n near = \"\\u0007\"\n}"), []string{`f.hcl:4:9: tag ""`, `f.hcl:5:9: near "\a"`}},
		{"locality", web("slow_start = \"1ms\"\nlocality {\n prefer = [\"rack\"]\n}\ndiscover {\n backup_weight = 65536\n backup_tag = \"\\u0007\"\n}"), []string{
			`f.hcl:3:14: slow_start is 1ms, allowed are 0 (off) or 100ms to 10m`, `f.hcl:5:11: prefer has "rack", allowed are node, zone, datacenter`,
			`f.hcl:8:18: backup_weight is 65536`, `f.hcl:9:15: backup_tag "\a"`}},
		{"more locality", web("locality {\n prefer = [\"zone\"]\n zone_meta = \"\"\n spill = 0\n node = \"\\u0001\"\n}"), []string{
			`f.hcl:5:14: zone_meta is empty`, `f.hcl:6:10: spill is 0, allowed are 1 to 100`, `f.hcl:7:9: node "\x01"`}},
		{"two without the other", "consul {\n  tls {\n    cert_file = \"x\"\n  }\n}\n" + ok, []string{`f.hcl:3:17: tls needs cert_file and key_file together`}},

		// Functions.
		{"functions", web("discover {\n near = env(\"NOPE\")\n service = file(\"none.txt\")\n filter = enf(\"X\")\n datacenter = env(env(\"X\"))\n tags = [env(), file(\"a\", \"b\")]\n}"), []string{
			`f.hcl:4:9: the environment variable NOPE is not set|env("NAME", "VALUE")`, `f.hcl:5:12: the file none.txt: file does not exist`,
			`f.hcl:6:11: there is no function "enf"|Did you mean "env"?`, `f.hcl:7:15: wrong use of env`, `f.hcl:8:10: wrong use of env`, `f.hcl:8:17: wrong use of file`}},

		// Syntax.
		{"open string", "service \"a\" {\n  listen = \":1\n}\nservice \"b\" {\n  lisen = \":2\"\n}\nservice \"c\" {\n  listen = \n}\n", []string{
			`f.hcl:2:15: invalid multi-line string`, `f.hcl:2:15: unterminated template string`,
			`f.hcl:5:3: unknown setting "lisen"`, `f.hcl:8:12: invalid expression`}},
		{"open block", "service \"a\" {\n  listen = \":1\"\n  retry {\n}\nservice \"b\" {\n  listen = \":2\"\n  pool { size = -1 }\n}\n", []string{
			`f.hcl:1:13: unclosed configuration block`, `f.hcl:7:17: pool size is -1`}},
		{"two in a line", "log { level = \"info\", format = \"json\" }\n" + ok, []string{`f.hcl:1:21: invalid single-argument block definition`}},
		{"no text at all", "\x00\xff\xfe", []string{`f.hcl:1:1: invalid character`, `f.hcl:1:1: argument or block definition required`, `f.hcl:1:2: invalid character encoding`}},
	} {
		_, err := loadText(c.text, nil)
		wantProblems(t, c.name, err, c.wants)
	}
}

func TestProblemsAreInOrder(t *testing.T) {
	env := world(map[string]string{
		"conf/b.hcl": "service \"b\" {\n  x = 1\n}\n",
		"conf/a.hcl": "service \"a\" {\n  listen = 5\n  y = 1\n  timeouts { idle = \"1ns\" }\n}\nlog {\n  level = \"x\"\n}",
	}, nil)
	_, err := Load([]string{"none.hcl", "conf"}, env)
	var places []string
	var ps Problems
	if !errors.As(err, &ps) {
		t.Fatal(err)
	}
	for _, p := range ps {
		places = append(places, p.Place())
	}
	got := strings.Join(places, " ")
	if want := "none.hcl conf/a.hcl:2:12 conf/a.hcl:3:3 conf/a.hcl:4:21 conf/a.hcl:7:11 conf/b.hcl:1:1 conf/b.hcl:2:3"; got != want {
		t.Errorf("got  %s\nwant %s\n%v", got, want, err)
	}
}

func TestFilesAndDirectories(t *testing.T) {
	service := func(n int) string { return fmt.Sprintf("service \"s%d\" { listen = \":0\" }\n", n) }
	env := world(map[string]string{
		"conf/20.hcl": service(2), "conf/10.hcl": service(1), "conf/.hidden.hcl": "x", "conf/30.txt": "x",
		"conf/sub/40.hcl": "x", "conf/d.hcl/x": "x", "conf/40.hcl~": "x", "base.hcl": "log { level = \"warn\" }\n", "last": service(3),
		"empty/readme": "x", "again.hcl": "log {}\n" + service(1),
	}, nil)
	cfg, err := Load([]string{"conf", "base.hcl", "conf/10.hcl", "./last"}, env)
	if err != nil {
		t.Fatal(err)
	}
	names := ""
	for _, s := range cfg.Services {
		names += s.Name
	}
	if names != "s1s2s3" || cfg.Log.Level != "warn" {
		t.Errorf("services %s, log %s", names, cfg.Log.Level)
	}
	_, err = Load([]string{"conf", "base.hcl", "again.hcl"}, env)
	wantProblems(t, "two files", err, []string{
		`again.hcl:1:1: log is there twice|It is already at base.hcl:1:1.`, `again.hcl:2:1: service "s1" is there twice|conf/10.hcl:1:1`})
	_, err = Load([]string{"nowhere", "empty"}, env)
	wantProblems(t, "wrong paths", err, []string{`nowhere: cannot be read: file does not exist`, `empty: holds no configuration|*.hcl`})
	_, err = Load(nil, env)
	wantProblems(t, "no paths", err, []string{"no configuration is named|-config"})
}

func TestBounds(t *testing.T) {
	block := "service \"s\" { listen = \":0\" }\n"
	big := strings.Repeat("# "+strings.Repeat("x", 62)+"\n", maxFile/64)
	files := map[string]string{"fits": big[:maxFile-len(block)-1] + "\n" + block, "big": big + block}
	for i := range maxAll/maxFile + 1 {
		files[fmt.Sprintf("many/%02d.hcl", i)] = big[:maxFile]
	}
	files["value"] = strings.Repeat("x", maxValue+1)
	env := world(files, nil)
	if _, err := Load([]string{"fits"}, env); err != nil {
		t.Errorf("%.300v", err)
	}
	_, err := Load([]string{"big"}, env)
	wantProblems(t, "big", err, []string{"big: is larger than 1MiB"})
	_, err = Load([]string{"many"}, env)
	wantProblems(t, "many", err, []string{"many/32.hcl: with this file the configuration is larger than 32MiB"})

	const much = 200_000 // bytes
	for name, text := range map[string]string{
		"brackets":   web("discover { tags = " + strings.Repeat("[", much/2)),
		"parens":     web("discover { tags = " + strings.Repeat("(", maxDepth+1) + strings.Repeat(")", maxDepth+1)),
		"closers":    web("discover { tags = " + strings.Repeat("(}", much/4)),
		"blocks":     strings.Repeat("a {\n", much/8),
		"templates":  web(`discover { filter = ` + strings.Repeat(`"${`, much/8)),
		"operators":  web("pool { size = " + strings.Repeat("!", much/2) + "1 }"),
		"ternaries":  web("pool { size = " + strings.Repeat("1?1:", much/8) + "1 }"),
		"directives": web(`discover { filter = "` + strings.Repeat(`%{if true}`, much/16) + `" }`),
		"list":       web("breaker { failure_statuses = [\n" + strings.Repeat("500,\n", maxTokens) + "] }"),
	} {
		_, err := loadText(text, nil)
		wantProblems(t, name, err, []string{"f.hcl:|too deep or too long to read"})
	}
	long := "service \"a\" {\n  listen = (\":1\"\n}\n"
	for i := range 1000 {
		long += fmt.Sprintf("service \"s%d\" { listen = \":0\" }\n", i)
	}
	_, err = loadText(long+"consul { wait = 1 }\n", nil)
	wantProblems(t, "one bracket open in a long file", err, []string{"f.hcl:3:1: unbalanced parentheses", "f.hcl:1004:17: wait must be"})
	tags := web("discover { tags = [" + strings.Repeat(`"x", `, 600) + "] }")
	_, err = loadText(tags, nil)
	wantProblems(t, "tags", err, []string{"f.hcl:3:19: 600 tags, allowed are up to 64"})

	env = world(map[string]string{"f.hcl": web(`discover { filter = file("value") }`), "value": files["value"]}, nil)
	_, err = Load([]string{"f.hcl"}, env)
	wantProblems(t, "value", err, []string{"f.hcl:3:21: the file value: is larger than 64KiB"})
}

// TestManyProblems holds that the cost of a bad file grows with its length.
func TestManyProblems(t *testing.T) {
	_, err := loadText(strings.Repeat("service \"a\" { x = }\n", 2000), nil)
	var ps Problems
	if !errors.As(err, &ps) || len(ps) < 2000 {
		t.Fatalf("only %d problems", len(ps))
	}
	if text := err.Error(); !strings.HasSuffix(text, fmt.Sprintf("and %d more", len(ps)-maxShown)) {
		t.Errorf("ends with %q", text[len(text)-40:])
	}
}

func TestSnippet(t *testing.T) {
	long := strings.Repeat("x", 300)
	for name, c := range map[string]struct{ text, want string }{
		"tabs":     {"\t\tlisen = 1", "   3 | \t\tlisen = 1\n     | \t\t^^^^^"},
		"controls": {"x = \"\x1b[31m\u202e\"", "   3 | x = \"\uFFFD[31m\uFFFD\"\n     | ^"},
		"start":    {"lisen = \"" + long + "\"", "   3 | lisen = \"" + long[:71] + "...\n     | ^^^^^"},
		"umlauts":  {"/* äöü */ lisen = 1", "   3 | /* äöü */ lisen = 1\n     |           ^^^^^"},
		"crlf":     {"lisen = 1\r\n", "   3 | lisen = 1\n     | ^^^^^"},
		"middle":   {"timeouts { idle = \"" + long + "\" }", "   3 | timeouts { idle = \"" + long[:79] + "...\n     |                   " + strings.Repeat("^", 80)},
		"end":      {"/*" + long + "*/ lisen = 1", "   3 | ..." + long[:57] + "*/ lisen = 1\n     | " + strings.Repeat(" ", 63) + "^^^^^"},
	} {
		_, err := loadText(web(c.text), nil)
		var ps Problems
		if !errors.As(err, &ps) || len(ps) != 1 || ps[0].Snippet != c.want {
			t.Errorf("%s: got\n%v\nwant\n%s", name, err, c.want)
		}
	}
}

// wantProblems compares the problems with wants, in any order: each a PLACE:
// MESSAGE that a problem begins with, then more texts that it has, set off by |.
func wantProblems(t *testing.T, name string, err error, wants []string) {
	t.Helper()
	var ps Problems
	if !errors.As(err, &ps) {
		t.Errorf("%s: no problems but %v", name, err)
		return
	}
	used := make([]bool, len(ps))
next:
	for _, want := range wants {
		parts := strings.Split(want, "|")
		for i, p := range ps {
			text := p.String()
			ok := !used[i] && strings.HasPrefix(text, parts[0])
			for _, part := range parts[1:] {
				ok = ok && strings.Contains(text, part)
			}
			if ok {
				used[i] = true
				continue next
			}
		}
		t.Errorf("%s: no problem is %s", name, want)
	}
	for i, p := range ps {
		if !used[i] {
			t.Errorf("%s: unexpected problem\n%s", name, p)
		}
	}
}
