package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"
)

func serveCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "serve http|tcp|udp ADDRESS:PORT",
		Short: "Run a small server that says who it is and who asked",
		Long: `Run a small server that says who it is and who asked. HTTP answers / with its
name and the client's address, and /healthz with ok; TCP sends that line and
closes; UDP sends each datagram back.`,
		Example: "  weir-lab exec --detach web a1 -- weir-lab serve http :8080",
		Args:    arguments(2, 2, "takes a protocol and an address"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if name == "" {
				name, _ = os.Hostname()
			}
			switch args[0] {
			case "http":
				return serveHTTP(cmd.Context(), args[1], name)
			case "tcp":
				return serveTCP(cmd.Context(), args[1], name)
			case "udp":
				return serveUDP(cmd.Context(), args[1])
			default:
				return fmt.Errorf("%w: protocol %q is not http, tcp or udp", errUsage, args[0])
			}
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "what it calls itself (default: the host's name)")
	return cmd
}

func serveHTTP(ctx context.Context, address, name string) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, name, r.RemoteAddr) })
	server := &http.Server{Addr: address, Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func serveTCP(ctx context.Context, address, name string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { listener.Close() })
	defer stop()
	for {
		c, err := listener.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		// One short line fits the socket's buffer, so that this never blocks.
		fmt.Fprintln(c, name, c.RemoteAddr())
		c.Close()
	}
}

func serveUDP(ctx context.Context, address string) error {
	c, err := net.ListenPacket("udp", address)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	buffer := make([]byte, 65535)
	for {
		n, from, err := c.ReadFrom(buffer)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		_, _ = c.WriteTo(buffer[:n], from) // lost, like any datagram
	}
}
