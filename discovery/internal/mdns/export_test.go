package mdns

import "net/netip"

type deaf struct{ Conn }

func (deaf) OnLink(netip.Addr) bool { return true }

// Packet is what an instance finds in a packet.
func Packet(service string, b []byte) (found []string) {
	o := &Options{Found: func(_ netip.Addr, _ func(netip.Addr) bool, text []string) { found = append(found, text...) }}
	l := &link{o: o, conn: deaf{}, service: service + ".local.", self: "a." + service + ".local.", asked: make(chan struct{}, 1)}
	l.packet(netip.Addr{}, b)
	return found
}
