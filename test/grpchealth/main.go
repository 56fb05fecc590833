// Command grpchealth is grpc-go's own server with its own health service, for tests of
// discovery/healthcheck. It prints the address it listens on and serves until its
// standard input ends.
package main

import (
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address")
	without := flag.Bool("without", false, "serve without the health service")
	cert := flag.String("cert", "", "PEM file: serve by TLS")
	key := flag.String("key", "", "PEM file")
	states := flag.String("states", "", `states of services: "NAME=SERVING,NAME=NOT_SERVING,..."; an empty NAME is the server`)
	flag.Parse()
	if err := run(*listen, *without, *cert, *key, *states); err != nil {
		log.Fatal(err)
	}
}

func run(listen string, without bool, cert, key, states string) error {
	var opts []grpc.ServerOption
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return err
		}
		opts = append(opts, grpc.Creds(credentials.NewServerTLSFromCert(&pair)))
	}
	server := grpc.NewServer(opts...)
	if !without {
		h := health.NewServer()
		for part := range strings.SplitSeq(states, ",") {
			name, state, ok := strings.Cut(part, "=")
			if !ok {
				continue
			}
			value, known := healthpb.HealthCheckResponse_ServingStatus_value[state]
			if !known {
				return fmt.Errorf("no state %q", state)
			}
			h.SetServingStatus(name, healthpb.HealthCheckResponse_ServingStatus(value))
		}
		healthpb.RegisterHealthServer(server, h)
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // its end is what matters
		server.Stop()
	}()
	return server.Serve(l)
}
