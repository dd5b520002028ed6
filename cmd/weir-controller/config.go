package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/weirproject/weir/controller"
	"github.com/weirproject/weir/controller/members"
	"github.com/weirproject/weir/document"
)

// defaultFile is read when it exists and no other is named.
const defaultFile = "/etc/weir/controller.yaml"

// config of a controller: the keys of its file.
type config struct {
	Name    string `json:"name"`     // the host's when empty
	DataDir string `json:"data_dir"` // what it keeps
	// Listen is the address of the API; Advertise the URL at which others reach
	// it, of the host's first address when empty.
	Listen    string `json:"listen"`
	Advertise string `json:"advertise"`
	// PeerListen is the address for the other controllers' stores; PeerAdvertise
	// the URL at which they reach this one's.
	PeerListen    string   `json:"peer_listen"`
	PeerAdvertise string   `json:"peer_advertise"`
	Hosts         []string `json:"hosts"`       // more names and addresses of the certificate
	CAKeyFile     string   `json:"ca_key_file"` // ca.key in data_dir when empty
	// Etcd is a store outside; without endpoints it is in the controller itself.
	Etcd etcdConfig `json:"etcd"`
	// VIP and DNS must say what the agents' files say.
	VIP vipConfig `json:"vip"`
	DNS dnsConfig `json:"dns"`
}

// vipConfig says where named virtual IPs get their addresses from.
type vipConfig struct {
	Range  netip.Prefix `json:"range"`
	Range6 netip.Prefix `json:"range6"`
}

type dnsConfig struct {
	Domain  string   `json:"domain"`
	Aliases []string `json:"aliases"`
}

type etcdConfig struct {
	Endpoints    []string `json:"endpoints"`
	CA           string   `json:"ca"` // files
	Cert         string   `json:"cert"`
	Key          string   `json:"key"`
	User         string   `json:"user"`
	PasswordFile string   `json:"password_file"`
}

func defaultConfig() config {
	names := controller.DefaultNames()
	return config{
		DataDir: members.DefaultDataDir, Listen: ":" + members.DefaultPort, PeerListen: ":" + members.DefaultPeer,
		VIP: vipConfig{Range: controller.DefaultRange, Range6: controller.DefaultRange6},
		DNS: dnsConfig{Domain: names.Domain, Aliases: names.Aliases},
	}
}

// configFlags are the command-line flags: one per key of the configuration.
type configFlags struct {
	file     string
	logLevel slog.Level
	set      map[string]*string
	flags    *pflag.FlagSet
}

func (c *configFlags) register(flags *pflag.FlagSet) {
	c.flags, c.set = flags, map[string]*string{}
	flags.StringVar(&c.file, "config", defaultFile, "configuration file")
	flags.TextVar(&c.logLevel, "log-level", slog.LevelInfo, "least level that is logged: debug, info, warn or error")
	defaults := defaultConfig()
	for _, leaf := range document.Leaves(&defaults) {
		name := flagName(leaf)
		c.set[name] = flags.String(name, leaf.String(), "key "+strings.Join(leaf.Path, ".")+" of the configuration")
	}
}

// load reads the file, then the environment, then the flags.
func (c *configFlags) load() (config, error) {
	conf := defaultConfig()
	data, err := os.ReadFile(c.file)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !c.flags.Changed("config"):
	case err != nil:
		return conf, fmt.Errorf("read the configuration: %w", err)
	default:
		if _, err = document.Decode(c.file, data, &conf); err != nil {
			return conf, err
		}
	}
	for _, leaf := range document.Leaves(&conf) {
		name := flagName(leaf)
		variable := "WEIR_CONTROLLER_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
		if text, ok := os.LookupEnv(variable); ok {
			if err := leaf.Set(text); err != nil {
				return conf, fmt.Errorf("%s: %w", variable, err)
			}
		}
		if c.flags.Changed(name) {
			if err := leaf.Set(*c.set[name]); err != nil {
				return conf, fmt.Errorf("%w: --%s: %w", errUsage, name, err)
			}
		}
	}
	return conf, nil
}

func flagName(leaf document.Leaf) string {
	return strings.ReplaceAll(strings.Join(leaf.Path, "-"), "_", "-")
}

func (c *configFlags) log() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: c.logLevel}))
}

// options are what the membership is made of.
func (c *configFlags) options() (config, members.Options, error) {
	conf, err := c.load()
	if err != nil {
		return conf, members.Options{}, err
	}
	o := members.Options{
		DataDir: conf.DataDir, Name: conf.Name, URL: conf.Advertise, Peer: conf.PeerAdvertise, Hosts: conf.Hosts, CAKeyFile: conf.CAKeyFile,
		Endpoints: conf.Etcd.Endpoints, EtcdUser: conf.Etcd.User, Log: c.log(),
	}
	if o.URL == "" {
		if o.URL, err = ownURL("listen", conf.Listen); err != nil {
			return conf, o, err
		}
	}
	if o.Peer == "" {
		if o.Peer, err = ownURL("peer_listen", conf.PeerListen); err != nil {
			return conf, o, err
		}
	}
	if o.PeerListen, err = listenURL("peer_listen", conf.PeerListen); err != nil {
		return conf, o, err
	}
	if conf.Etcd.PasswordFile != "" {
		text, err := os.ReadFile(conf.Etcd.PasswordFile)
		if err != nil {
			return conf, o, fmt.Errorf("etcd.password_file: %w", err)
		}
		o.EtcdPassword = strings.TrimSpace(string(text))
	}
	o.EndpointTLS, err = conf.Etcd.tls()
	return conf, o, err
}

// tls of an etcd outside; nil without files.
func (e *etcdConfig) tls() (*tls.Config, error) {
	if e.CA == "" && e.Cert == "" {
		return nil, nil
	}
	settings := &tls.Config{MinVersion: tls.VersionTLS12}
	if e.CA != "" {
		text, err := os.ReadFile(e.CA)
		if err != nil {
			return nil, fmt.Errorf("etcd.ca: %w", err)
		}
		settings.RootCAs = x509.NewCertPool()
		if !settings.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("etcd.ca: %s holds no certificate in PEM", e.CA)
		}
	}
	if e.Cert != "" {
		pair, err := tls.LoadX509KeyPair(e.Cert, e.Key)
		if err != nil {
			return nil, fmt.Errorf("etcd.cert: %w", err)
		}
		settings.Certificates = []tls.Certificate{pair}
	}
	return settings, nil
}

// listenURL is an address to listen on, in the form that the store wants.
func listenURL(field, address string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", fmt.Errorf("%s: %w", field, err)
	}
	if host == "" {
		host = "::"
		if !hasIPv6() {
			host = "0.0.0.0"
		}
	}
	return "https://" + net.JoinHostPort(host, port), nil
}

// ownURL is how others may reach what listens at an address: by it, or by the
// host's first address where it is every one.
func ownURL(field, address string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", fmt.Errorf("%s: %w", field, err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = firstAddress()
	}
	return "https://" + net.JoinHostPort(host, port), nil
}

func firstAddress() string {
	addresses, err := net.InterfaceAddrs()
	if err == nil {
		for _, a := range addresses {
			if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
				return n.IP.String()
			}
		}
	}
	return "127.0.0.1"
}

func hasIPv6() bool {
	_, err := os.Stat("/proc/net/if_inet6")
	return err == nil
}
