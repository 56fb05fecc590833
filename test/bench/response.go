package main

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

// errPartial tells that there must be more of a message.
var errPartial = errors.New("not complete")

// responseLength is the whole length of the response at the start of buf,
// which must carry a Content-Length, and its status. The generator meets only
// answers of our own backends: this is no parser for the world.
func responseLength(buf []byte) (length, status int, err error) {
	end := bytes.Index(buf, []byte("\r\n\r\n"))
	if end < 0 {
		return 0, 0, errPartial
	}
	line, rest, _ := bytes.Cut(buf[:end], []byte("\r\n"))
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.")) || line[8] != ' ' {
		return 0, 0, fmt.Errorf("not an HTTP response: %.40q", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, 0, fmt.Errorf("a response without a status: %.40q", line)
	}
	for len(rest) > 0 {
		line, rest, _ = bytes.Cut(rest, []byte("\r\n"))
		name, value, _ := bytes.Cut(line, []byte{':'})
		if !bytes.EqualFold(name, []byte("Content-Length")) {
			continue
		}
		n, err := strconv.ParseUint(string(bytes.TrimSpace(value)), 10, 31)
		if err != nil {
			return 0, 0, fmt.Errorf("a response with Content-Length %.40q", value)
		}
		length = end + 4 + int(n)
		if len(buf) < length {
			err = errPartial
		}
		return length, status, err
	}
	return 0, 0, errors.New("a response without Content-Length")
}
