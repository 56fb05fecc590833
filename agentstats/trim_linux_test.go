package agentstats

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// TestCleanMappings: what was written to once is not thrown away, whatever it may be
// now.
func TestCleanMappings(t *testing.T) {
	const smaps = "1000-2000 r-xp 00000000 08:01 7 /bin/agent\nSize: 4 kB\nAnonymous: 0 kB\nVmFlags: rd ex\n" +
		"2000-3000 r--p 00001000 08:01 7 /bin/agent\nAnonymous: 4 kB\nVmFlags: rd\n" + // relocations
		"3000-4000 rw-p 00002000 08:01 7 /bin/agent\nAnonymous: 0 kB\n" +
		"4000-5000 r--p 00000000 08:01 8 /lib/other\nAnonymous: 0 kB\n" +
		"5000-6000 r--p 00000000 00:00 0\nAnonymous: 0 kB\n" +
		"6000-7000 r--p 00003000 08:01 7 /bin/agent\nRss: 4 kB\n" + // does not say
		"x-y r--p 00003000 08:01 7 /bin/agent\nAnonymous: 0 kB\n" +
		"8000-9000 r--p 00004000 08:01 7 /bin/agent\nAnonymous: 0 kB\n"
	got := cleanMappings([]byte(smaps), "/bin/agent")
	if want := []mapping{{0x1000, 0x2000}, {0x8000, 0x9000}}; !slices.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
}

// TestTrim: a program lives on after trim, and one that is position-independent too.
func TestTrim(t *testing.T) {
	if os.Getenv("OUTRIGGER_TRIM") != "" {
		trim()
		// What needs relocated tables: maps of types, formats, errors.
		if _, err := os.Open(filepath.Join(t.TempDir(), "none")); !os.IsNotExist(err) {
			t.Error(err)
		}
		return
	}
	if testing.Short() {
		t.Skip("builds the tests once more")
	}
	pie := filepath.Join(t.TempDir(), "pie.test")
	if out, err := exec.Command("go", "test", "-c", "-buildmode=pie", "-o", pie, ".").CombinedOutput(); err != nil {
		t.Skipf("no position-independent build here: %v\n%s", err, out)
	}
	for _, program := range []string{os.Args[0], pie} {
		cmd := exec.Command(program, "-test.run=^TestTrim$", "-test.timeout=60s")
		cmd.Env = append(os.Environ(), "OUTRIGGER_TRIM=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%.2000s", program, err, out)
		}
	}
}
