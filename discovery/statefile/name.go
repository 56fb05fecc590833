package statefile

import (
	"crypto/sha256"
	"fmt"
	"strings"
)

// maxStem leaves room in the 255 bytes of a file name for the suffix, and for what
// the names of temporary files have more.
const maxStem = 180

// Name makes a file name of a label, in letters, digits and "-_." as they are and
// anything else as %XX, and of a suffix. Different labels have different names.
func Name(label, suffix string) string {
	var b strings.Builder
	for i, c := range []byte(label) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.' && i > 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	stem := b.String()
	if stem == "" {
		stem = "%"
	}
	if len(stem) > maxStem {
		sum := sha256.Sum256([]byte(label))
		// A "~" is in no other name.
		stem = fmt.Sprintf("%s~%x", stem[:maxStem-33], sum[:16])
	}
	return stem + suffix
}

// checkName accepts what Name makes.
func checkName(name string) error {
	if name == "" || name[0] == '.' || len(name) > 220 || strings.ContainsAny(name, "/\\\x00*") {
		return fmt.Errorf("%.80q is no name of a state file", name)
	}
	return nil
}
