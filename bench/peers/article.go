// The server of the article "TCP servers that run like clockwork", as its text describes it: one goroutine per
// connection, a connection that moves its deadline on every read and write and limits each read, a scanner, a flush
// per line, tracked connections, and a shutdown that polls until they are gone. It logs each connection to stderr as
// the article's does; shouty logs too, and the bench gives both a file.
//
// Usage: article [PORT|PATH [IDLE_MS [CERT KEY [CLIENT_CA]]]], with the path of a Unix socket, and the files of a
// certificate, of its key, and of the authority whose certificates clients have to show.
package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const maxReadBuffer = 64 * 1024

type conn struct {
	net.Conn
	idleTimeout   time.Duration
	maxReadBuffer int64
}

func (c *conn) Read(p []byte) (int, error) {
	c.moveDeadline()
	return io.LimitReader(c.Conn, c.maxReadBuffer).Read(p)
}

func (c *conn) Write(p []byte) (int, error) {
	c.moveDeadline()
	return c.Conn.Write(p)
}

func (c *conn) moveDeadline() {
	c.Conn.SetDeadline(time.Now().Add(c.idleTimeout))
}

type server struct {
	listener    net.Listener
	idleTimeout time.Duration
	inShutdown  atomic.Bool
	mu          sync.Mutex
	conns       map[*conn]struct{}
}

func (s *server) serve() {
	for {
		accepted, err := s.listener.Accept()
		if err != nil {
			if s.inShutdown.Load() {
				return
			}
			log.Printf("error accepting connection %v", err)
			continue
		}
		log.Printf("accepted connection from %v", accepted.RemoteAddr())
		c := &conn{accepted, s.idleTimeout, maxReadBuffer}
		s.track(c)
		c.moveDeadline()
		go s.handle(c)
	}
}

func (s *server) handle(c *conn) {
	defer func() {
		log.Printf("closing connection from %v", c.RemoteAddr())
		c.Close()
		s.untrack(c)
	}()
	w := bufio.NewWriter(c)
	scanner := bufio.NewScanner(bufio.NewReader(c))
	for scanner.Scan() {
		w.WriteString(strings.ToUpper(scanner.Text()) + "\n")
		w.Flush()
	}
	if err := scanner.Err(); err != nil {
		log.Printf("%v(%v)", err, c.RemoteAddr())
	}
}

func (s *server) track(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c] = struct{}{}
}

func (s *server) untrack(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

func (s *server) active() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

func (s *server) shutdown() {
	s.inShutdown.Store(true)
	log.Println("shutting down...")
	s.listener.Close()
	ticker := time.NewTicker(500 * time.Millisecond)
	defer ticker.Stop()
	for s.active() > 0 {
		<-ticker.C
		log.Printf("waiting on %v connections", s.active())
	}
}

// argument returns the argument at an index, or "".
func argument(index int) string {
	if len(os.Args) <= index {
		return ""
	}
	return os.Args[index]
}

// listen opens the TCP port or the Unix socket, with TLS if there is a certificate.
func listen() (net.Listener, error) {
	network, address := "tcp", "127.0.0.1:"+argument(1)
	if strings.Contains(argument(1), "/") {
		network, address = "unix", argument(1)
	}
	listener, err := net.Listen(network, address)
	if err != nil || argument(3) == "" {
		return listener, err
	}
	pair, err := tls.LoadX509KeyPair(argument(3), argument(4))
	if err != nil {
		return nil, err
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}}
	if argument(5) != "" {
		authority, err := os.ReadFile(argument(5))
		if err != nil {
			return nil, err
		}
		config.ClientCAs = x509.NewCertPool()
		config.ClientCAs.AppendCertsFromPEM(authority)
		config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return tls.NewListener(listener, config), nil
}

func number(index, fallback int) int {
	if len(os.Args) <= index {
		return fallback
	}
	n, err := strconv.Atoi(os.Args[index])
	if err != nil {
		log.Fatal(err)
	}
	return n
}

func main() {
	listener, err := listen()
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("listening on %v", listener.Addr())
	s := &server{
		listener:    listener,
		idleTimeout: time.Duration(number(2, 10000)) * time.Millisecond,
		conns:       map[*conn]struct{}{},
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go s.serve()
	<-signals
	s.shutdown()
}
