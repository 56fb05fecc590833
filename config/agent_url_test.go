package config

import "testing"

func TestQueriesDoNotPrint(t *testing.T) {
	for in, want := range map[string]string{
		"http://127.0.0.1:80/m":            `"http://127.0.0.1:80/m"`,
		"http://127.0.0.1:80/m?token=s3cr": `"http://127.0.0.1:80/m?[redacted]"`,
	} {
		if got := queryText(&in).text(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
