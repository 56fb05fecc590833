package h1

// fillPlain is fill for what is no plain socket.
func (s *sock) fillPlain(f *buffer) (int, error) {
	if b := s.held; b != nil {
		s.held = nil
		n, err := s.nc.Write(b)
		s.put += int64(n)
		if s.wrote = n > 0; err != nil {
			return 0, err
		}
	}
	s.bufs.attach(f)
	n, err := f.fill(s.nc)
	s.got += int64(n)
	return n, err
}
