package declared

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// Formats lists what Config.Format may be, besides "".
func Formats() []string { return []string{"prometheus", "json", "orca"} }

const (
	formatPrometheus = "prometheus"
	formatJSON       = "json"
	formatORCA       = "orca"
)

// Config says where the app declares its figures. It is the app's own word, so the URL
// should be one of the backend alone: on loopback, or at the address it serves on.
type Config struct {
	// URL is asked by GET, "http://..." or "https://...", without user and password; ""
	// is no source. No proxy is used and no redirect followed.
	URL string
	// Format is one of Formats; "" is told by what else is set: Metric means
	// "prometheus", Field "json", neither "orca".
	Format string
	// Metric is the gauge on a page of Prometheus' text format that counts the requests in
	// the backend. Labels are those that its series must have; the series that do, add up
	// (one per worker process, say).
	Metric string
	Labels map[string]string
	// Field is where the number stands in a JSON document: names of members and positions
	// in arrays, from 0, with dots between, "pools.0.busy".
	Field string
	// Named is ORCA's named metric that counts the requests in the backend.
	Named string
	// Interval is the least time between two requests, 1ms to 100ms. 0 adapts to what they
	// cost: at most 5 % of the time is spent on them, by the quickest of late, within
	// every 5 to every 100 ms.
	Interval time.Duration
	// MaxAge is how old a figure may be that is still given, 5ms to 1s.
	MaxAge time.Duration
	// Timeout bounds one request, 1ms to 2 MaxAge. Whoever needs a figure waits for it.
	Timeout time.Duration
}

// DefaultConfig returns the defaults; there is no URL.
func DefaultConfig() Config {
	return Config{
		Named:    "in_flight", // ORCA's schema has no such figure
		Interval: 0,
		// PICKING.md: older is of another situation than the report that carries it.
		MaxAge: 20 * time.Millisecond,
		// A figure is dated to the middle of its request: one that took longer is too old.
		Timeout: 40 * time.Millisecond,
	}
}

// On reports whether there is a source.
func (c Config) On() bool { return c.URL != "" }

// format is Format, or what it comes to when that is "".
func (c Config) format() string {
	switch {
	case c.Format != "":
		return c.Format
	case c.Metric != "":
		return formatPrometheus
	case c.Field != "":
		return formatJSON
	}
	return formatORCA
}

// maxText bounds names and paths.
const maxText = 512

// Validate reports everything that is wrong with the configuration.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("declared "+format, args...)) }
	if c.URL != "" {
		if err := checkURL(c.URL); err != nil {
			bad("url %w", err)
		}
	} else if c.Format != "" || c.Metric != "" || c.Field != "" || len(c.Labels) > 0 {
		bad("has no url: write where the app tells its figures, url = \"http://127.0.0.1:PORT/PATH\"")
	}
	f := c.format()
	switch {
	case f != formatPrometheus && f != formatJSON && f != formatORCA:
		bad("format is %.40q, allowed are %s", c.Format, strings.Join(Formats(), ", "))
	case f == formatPrometheus && c.Metric == "":
		bad("format is \"prometheus\", so metric must name the gauge")
	case f == formatJSON && c.Field == "":
		bad("format is \"json\", so field must tell where the number is")
	}
	if f != formatPrometheus && (c.Metric != "" || len(c.Labels) > 0) {
		bad("metric and labels are of format \"prometheus\", not %q", f)
	}
	if f != formatJSON && c.Field != "" {
		bad("field is of format \"json\", not %q", f)
	}
	if err := c.checkNames(); err != nil {
		bad("%w", err)
	}
	for _, t := range []struct {
		name           string
		d, least, most time.Duration
	}{
		{"max_age", c.MaxAge, fresh, time.Second},
		{"timeout", c.Timeout, time.Millisecond, 5 * time.Second},
		{"interval", c.Interval, time.Millisecond, slowest},
	} {
		if (t.d < t.least || t.d > t.most) && !(t.name == "interval" && t.d == 0) {
			bad("%s is %v, allowed are %v to %v", t.name, t.d, t.least, t.most)
		}
	}
	if c.Timeout > 2*c.MaxAge {
		// Dated to the middle of its request, the figure would be too old whenever it came.
		bad("timeout is %v, more than twice max_age (%v): no answer that late would be used", c.Timeout, c.MaxAge)
	}
	return errors.Join(errs...)
}

func checkURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case len(text) > maxText:
		return fmt.Errorf("is longer than %d bytes", maxText)
	case err != nil: // of which the text repeats the URL, and what is in it
		return errors.New("is not a URL")
	case u.User != nil:
		return errors.New("has a user or password, which are not sent")
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Hostname() == "":
		return fmt.Errorf("is %q, which is not \"http://HOST:PORT/PATH\"", text)
	case u.Fragment != "":
		return errors.New("has a fragment, which is not sent")
	}
	return nil
}

func (c Config) checkNames() error {
	for _, x := range []struct{ name, text string }{{"metric", c.Metric}, {"field", c.Field}, {"named", c.Named}} {
		if len(x.text) > maxText || strings.ContainsFunc(x.text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return fmt.Errorf("%s is not a name of up to %d printable characters", x.name, maxText)
		}
	}
	if c.Named == "" {
		return errors.New("named is empty: write the metric, as ORCA has no figure of its own for requests in flight")
	}
	if strings.ContainsAny(c.Metric, "{}\" ") {
		return fmt.Errorf("metric is %.80q: give its name alone, and what stands in braces as labels", c.Metric)
	}
	if len(c.Labels) > 16 {
		return fmt.Errorf("labels are %d, allowed are up to 16", len(c.Labels))
	}
	if parts := strings.Split(c.Field, "."); c.Field != "" && (len(parts) > maxDepth || hasEmpty(parts)) {
		return fmt.Errorf("field is %.80q, which is not a path like \"pools.0.busy\" of up to %d parts", c.Field, maxDepth)
	}
	return nil
}

func hasEmpty(parts []string) bool {
	for _, p := range parts {
		if p == "" {
			return true
		}
	}
	return false
}
