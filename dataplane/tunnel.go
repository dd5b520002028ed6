package dataplane

// VXLANPort is where nodes take the packets of container networks out of
// tunnels, by UDP (RFC 7348).
const VXLANPort = 4789
