// Package netlab builds small networks out of Linux network namespaces, for tests
// that need what loopback cannot give: an address for each node, a cable that is
// pulled, a network that falls into parts, a router that translates addresses.
//
// It is no simulation: real processes, real kernels, real time. What can be
// shown in virtual time is shown there.
//
//	lab := netlab.New(t)
//	a, b := lab.Host("20.1.0.1"), lab.Host("20.2.0.1", "2a01:1::1")
//	home := lab.Router("20.3.0.1", "10.0.0.1/24") // translates addresses
//	c := home.Host("10.0.0.2")
//	err := c.Start(exec.Command("dunlin", "start"))
//	a.Unplug()
//	lab.Partition([]netlab.Node{a}, []netlab.Node{b, home})
//
// Every host of a switch has all addresses "on the link": any address can be given to any
// host, nobody needs a route. One that nobody has answers nothing: a dial of it
// ends with "no route to host" after 3 s.
//
// Invariants:
//   - Nothing outside is touched: no interface, route, rule or file of the machine.
//     All that is made is inside new namespaces, and there is no way from those to
//     anything else.
//   - The namespaces have no names and live as long as this process holds them or a
//     process runs in them. So nothing can be left over, however a test ends.
//
// Methods fail the test when the kernel refuses. It needs root and iproute2, and for
// Router iptables; without them [New] skips the test and says so, but with CI=true
// and root it fails. On other systems than Linux the package is empty.
package netlab
