package h1

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
)

// TLSConfig says how to speak TLS to the backends of a service. Files are PEM;
// they are looked at once a second and read again when they change.
type TLSConfig struct {
	// Enabled: without it all else must be left at its default, so that nobody
	// believes in a TLS that is not there.
	Enabled bool
	// CAFile holds the authorities that may vouch for backends. "": the
	// system's, as they are when the first connection is made.
	CAFile string
	// ServerName is sent as SNI and must be in the backend's certificate. "":
	// the host of the instance's address. Consul gives an IP there as a rule: an
	// IP is not sent as SNI, and must be among the certificate's IP addresses.
	// So a service whose certificates carry names needs a ServerName.
	ServerName string
	// CertFile and KeyFile are what we show to backends that ask: both or
	// neither. The certificate's issuers follow it in CertFile.
	CertFile, KeyFile string
	MinVersion        string // "1.2" or "1.3"
	// InsecureSkipVerify takes any certificate; for tests only.
	InsecureSkipVerify bool
}

// DefaultTLSConfig returns the settings of a service that says nothing.
func DefaultTLSConfig() TLSConfig {
	return TLSConfig{MinVersion: "1.2"} // RFC 8996 forbids what is older
}

// TLSVersions lists what MinVersion allows.
func TLSVersions() []string { return []string{"1.2", "1.3"} }

// Validate reports every setting that is wrong. It reads the files.
func (c TLSConfig) Validate() error {
	if !c.Enabled {
		return c.idle()
	}
	var errs []error
	if !slices.Contains(TLSVersions(), c.MinVersion) {
		errs = append(errs, fmt.Errorf("tls min_version is %q, allowed are %s", c.MinVersion, strings.Join(TLSVersions(), ", ")))
	}
	if !serverName(c.ServerName) {
		errs = append(errs, fmt.Errorf("tls server_name %.80q is neither a host name nor an IP address", c.ServerName))
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		errs = append(errs, errors.New("tls needs cert_file and key_file together"))
		c.CertFile, c.KeyFile = "", ""
	}
	if c.CAFile != "" {
		b, _, err := readPEM("ca_file", c.CAFile)
		if err == nil {
			_, err = parseCAs(c.CAFile, b)
		}
		errs = append(errs, err)
	}
	if c.CertFile != "" {
		cert, _, err := readPEM("cert_file", c.CertFile)
		key, _, kerr := readPEM("key_file", c.KeyFile)
		if errs = append(errs, err, kerr); err == nil && kerr == nil {
			_, err = parsePair(&c, cert, key)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// idle reports settings that have no effect for want of Enabled.
func (c TLSConfig) idle() error {
	def := DefaultTLSConfig()
	for _, s := range []struct {
		name string
		set  bool
	}{
		{"ca_file", c.CAFile != ""},
		{"server_name", c.ServerName != ""},
		{"cert_file", c.CertFile != ""},
		{"key_file", c.KeyFile != ""},
		{"min_version", c.MinVersion != def.MinVersion},
		{"insecure_skip_verify", c.InsecureSkipVerify},
	} {
		if s.set {
			return fmt.Errorf("tls has %s but is not on: write enabled = true, or drop it", s.name)
		}
	}
	return nil
}

// minVersion is for a valid MinVersion.
func (c *TLSConfig) minVersion() uint16 {
	if c.MinVersion == "1.3" {
		return tls.VersionTLS13
	}
	return tls.VersionTLS12
}

// serverName reports whether s may stand in ServerName.
func serverName(s string) bool {
	if s == "" || net.ParseIP(s) != nil {
		return true
	}
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			// Consul's names may have an underscore.
			if c := label[i] | 0x20; (c < 'a' || c > 'z') && (label[i] < '0' || label[i] > '9') && label[i] != '-' && label[i] != '_' {
				return false
			}
		}
	}
	return true
}

// maxPEM bounds what is read of one file; the largest bundle of all public
// authorities is about 250 KiB.
const maxPEM = 1 << 20

// readPEM reads a file of the setting that is named, and what it looked like
// just before. Only regular files, as others may block for ever.
func readPEM(setting, path string) ([]byte, os.FileInfo, error) {
	fail := func(err error) ([]byte, os.FileInfo, error) {
		var pe *os.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return nil, nil, fmt.Errorf("tls %s %q: %w", setting, path, err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return fail(err)
	}
	if !info.Mode().IsRegular() {
		return fail(errors.New("it is no regular file"))
	}
	f, err := os.Open(path)
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	if err != nil {
		return fail(err)
	}
	if len(b) > maxPEM {
		return fail(fmt.Errorf("it is larger than %d bytes", maxPEM))
	}
	return b, info, nil
}

// parseCAs is stricter than x509.CertPool: a file that is broken anywhere, or
// ends in the middle of a certificate, is refused as a whole.
func parseCAs(path string, b []byte) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	n := 0
	for {
		block, rest := pem.Decode(b)
		if block == nil {
			break
		}
		b = rest
		if block.Type != "CERTIFICATE" && block.Type != "TRUSTED CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("tls ca_file %q: certificate %d: %w", path, n+1, err)
		}
		pool.AddCert(cert)
		n++
	}
	if bytes.Contains(b, []byte("-----BEGIN")) {
		return nil, fmt.Errorf("tls ca_file %q: it is cut off or broken after %d certificates", path, n)
	}
	if n == 0 {
		return nil, fmt.Errorf("tls ca_file %q: there is no certificate in it (PEM is expected)", path)
	}
	return pool, nil
}

// parsePair checks that key and certificate belong together.
func parsePair(c *TLSConfig, cert, key []byte) (*tls.Certificate, error) {
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("tls cert_file %q with key_file %q: %w", c.CertFile, c.KeyFile, err)
	}
	return &pair, nil
}
