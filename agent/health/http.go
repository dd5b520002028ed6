package health

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"sync"

	"github.com/weirproject/weir/api"
)

// maxBody is how much of an answer's body is read, in bytes. Its header may be
// as long again.
const maxBody = 64 << 10

// httpProbe is a GET that is ready to be sent.
type httpProbe struct {
	address netip.AddrPort
	path    string
	request []byte
	tls     *tls.Config // nil: plain HTTP
}

// readers are reused, since a check's would be garbage a millisecond later.
var readers = sync.Pool{New: func() any { return bufio.NewReader(nil) }}

func newHTTPProbe(check api.HTTPCheck, backend netip.AddrPort, config *tls.Config) probeFunc {
	p := &httpProbe{address: withPort(backend, check.Port), path: check.Path, tls: config}
	if p.path == "" {
		p.path = "/"
	}
	request, err := http.NewRequest(http.MethodGet, "http://"+p.address.String()+p.path, nil)
	if err != nil {
		return func(context.Context) error { return err }
	}
	request.Close = true
	request.Host = check.Host // the address when empty
	request.Header.Set("User-Agent", userAgent)
	var b bytes.Buffer
	if err := request.Write(&b); err != nil {
		return func(context.Context) error { return err }
	}
	p.request = b.Bytes()
	return p.probe
}

// probe follows no redirect: a redirect is an answer.
func (p *httpProbe) probe(ctx context.Context) error {
	conn, done, err := open(ctx, p.address, p.tls)
	if err != nil {
		return err
	}
	defer done()
	if _, err := conn.Write(p.request); err != nil {
		return err
	}
	reader := readers.Get().(*bufio.Reader)
	defer readers.Put(reader)
	reader.Reset(io.LimitReader(conn, 2*maxBody))
	defer reader.Reset(nil) // keeps nothing of this check alive
	return p.answer(reader)
}

func (p *httpProbe) answer(reader *bufio.Reader) error {
	for {
		response, err := http.ReadResponse(reader, nil)
		if err != nil {
			return fmt.Errorf("read the answer to GET %s: %w", p.path, err)
		}
		code := response.StatusCode
		if code >= 100 && code < 200 && code != http.StatusSwitchingProtocols {
			continue // early hints and the like come before the answer
		}
		// A server that is cut off in the middle of its answer logs it. The body
		// is not closed, since that would read all of it.
		_, _ = io.CopyN(io.Discard, response.Body, maxBody)
		if code < 200 || code > 399 {
			return answered("GET %s answered %s", p.path, response.Status)
		}
		return nil
	}
}
