package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// parseSessions reads HAProxy's "show stat" and adds up the current sessions
// of the servers: requests that hold a place on one.
func parseSessions(r io.Reader) (int, error) {
	c := csv.NewReader(r)
	c.FieldsPerRecord = -1
	head, err := c.Read()
	if err != nil {
		return 0, fmt.Errorf("HAProxy's statistics: %w", err)
	}
	kind, current := slices.Index(head, "svname"), slices.Index(head, "scur")
	if kind < 0 || current < 0 {
		return 0, fmt.Errorf("HAProxy's statistics have other columns: %q", strings.Join(head, ","))
	}
	total := 0
	for {
		row, err := c.Read()
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return 0, fmt.Errorf("HAProxy's statistics: %w", err)
		}
		if len(row) <= max(kind, current) || row[kind] == "FRONTEND" || row[kind] == "BACKEND" {
			continue
		}
		n, err := strconv.Atoi(row[current])
		if err != nil || n < 0 {
			return 0, fmt.Errorf("HAProxy's statistics say %q sessions", row[current])
		}
		total += n
	}
}
