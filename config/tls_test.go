package config

import "testing"

func TestTLSProblems(t *testing.T) {
	for _, c := range []struct {
		name, text string
		wants      []string // see wantProblems
	}{
		{"not on", web("tls {\n ca_file = \"testdata/tls/cert.pem\"\n}"), []string{`f.hcl:4:12: tls has ca_file but is not on: write enabled = true`}},
		{"no file", web("tls {\n enabled = true\n ca_file = \"testdata/none.pem\"\n}"), []string{`f.hcl:5:12: tls ca_file "testdata/none.pem": no such file`}},
		{"no certificate", web("tls {\n enabled = true\n ca_file = \"testdata/tls/key.pem\"\n}"), []string{`f.hcl:5:12: tls ca_file "testdata/tls/key.pem": there is no certificate in it`}},
		{"half a pair", web("tls {\n enabled = true\n cert_file = \"testdata/tls/cert.pem\"\n}"), []string{`f.hcl:5:14: tls needs cert_file and key_file together`}},
		{"swapped", web("tls {\n enabled = true\n cert_file = \"testdata/tls/key.pem\"\n key_file = \"testdata/tls/cert.pem\"\n}"), []string{`f.hcl:5:14: tls cert_file "testdata/tls/key.pem" with key_file`}},
		{"version and name", web("tls {\n enabled = true\n min_version = \"1.1\"\n server_name = \"https://web\"\n}"), []string{
			`f.hcl:5:16: min_version is not one of 1.2, 1.3`, `f.hcl:6:16: tls server_name "https://web" is neither`}},
		{"all at once", web("tls {\n enabled = true\n ca_file = \"/dev/zero\"\n server_name = \"a b\"\n}"), []string{
			`f.hcl:5:12: tls ca_file "/dev/zero": it is no regular file`, `f.hcl:6:16: tls server_name "a b"`}},
	} {
		_, err := loadText(c.text, nil)
		wantProblems(t, c.name, err, c.wants)
	}
}

func TestSocketProblems(t *testing.T) {
	one := func(listen string) string { return "service \"a\" { listen = \"" + listen + "\" }\n" }
	for _, c := range []struct {
		name, text string
		wants      []string
	}{
		{"twice", one("unix:/run/a.sock") + "service \"b\" { listen = \"unix:/run/a.sock\" }\n", []string{`f.hcl:2:24: service "b" listens on "unix:/run/a.sock", as does service "a"`}},
		{"twice, like a port", one("unix:/run/a:0") + "service \"b\" { listen = \"unix:/run/a:0\" }\n", []string{`f.hcl:2:24: service "b" listens on`}},
		{"relative", one("unix:a.sock"), []string{`f.hcl:1:24: listen "unix:a.sock": after unix: must come an absolute path`}},
		{"two names", one("unix:/run//a.sock"), []string{`f.hcl:1:24: listen "unix:/run//a.sock": write the path as "/run/a.sock"`}},
		{"other notations", one("unix@/run/a.sock"), []string{`f.hcl:1:24: listen "unix@/run/a.sock": a Unix socket is written "unix:/PATH"`}},
		{"abstract", one("unix:@a"), []string{`f.hcl:1:24: listen "unix:@a": abstract sockets are not supported`}},
		{"mode", "service \"a\" {\n listen = \"unix:/run/a.sock\"\n listen_mode = \"rw\"\n}\n", []string{`f.hcl:3:16: listen_mode is "rw", allowed are "0600" to "0777"`}},
		{"mode without socket", "service \"a\" {\n listen = \":0\"\n listen_mode = \"0660\"\n}\n", []string{`f.hcl:3:16: listen_mode is "0660", but listen is no Unix socket`}},
	} {
		_, err := loadText(c.text, nil)
		wantProblems(t, c.name, err, c.wants)
	}
}
