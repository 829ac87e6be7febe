package group_test

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

const (
	blockSize = 4096
	tokens    = 4
	ringMagic = "LBRING1\n"
)

// counters is what a member of the ring has on its disk: of each token the number that it received last, and the one it sent last.
// A number is on the disk before it goes on to the next member.
type counters struct {
	member     int
	recv, sent [tokens]uint64
}

func (c *counters) encode() []byte {
	b := make([]byte, 0, blockSize)
	b = append(b, ringMagic...)
	b = binary.BigEndian.AppendUint64(b, uint64(c.member))
	for k := range tokens {
		b = binary.BigEndian.AppendUint64(b, c.recv[k])
		b = binary.BigEndian.AppendUint64(b, c.sent[k])
	}
	b = b[:blockSize]
	binary.BigEndian.PutUint32(b[blockSize-4:], crc32.ChecksumIEEE(b[:blockSize-4]))
	return b
}

func decodeCounters(b []byte) (c counters, err error) {
	if len(b) != blockSize || string(b[:8]) != ringMagic || crc32.ChecksumIEEE(b[:blockSize-4]) != binary.BigEndian.Uint32(b[blockSize-4:]) {
		return c, errors.New("no counters")
	}
	c.member = int(binary.BigEndian.Uint64(b[8:]))
	for k := range tokens {
		c.recv[k], c.sent[k] = binary.BigEndian.Uint64(b[16+16*k:]), binary.BigEndian.Uint64(b[24+16*k:])
	}
	return c, nil
}

// appSetup is what a member of the ring is told.
type appSetup struct {
	Member       int
	File         string
	Listen, Next string
}

// app is a member of the ring: what it receives it writes to its disk and sends on. The first member adds one.
type app struct {
	s    appSetup
	file *os.File

	mu   sync.Mutex // guards c
	c    counters
	news *sync.Cond
}

// appProcess runs a member of the ring until it is killed.
func appProcess(path string) error {
	a := &app{}
	a.news = sync.NewCond(&a.mu)
	raw, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(raw, &a.s)
	}
	if err != nil {
		return err
	}
	if a.file, err = os.OpenFile(a.s.File, os.O_RDWR, 0); err != nil {
		return err
	}
	b := make([]byte, blockSize)
	if _, err := a.file.ReadAt(b, 0); err != nil {
		return err
	}
	if a.c, err = decodeCounters(b); err != nil {
		return err
	}
	l, err := net.Listen("tcp", a.s.Listen)
	if err != nil {
		return err
	}
	go a.send()
	if a.s.Member == 0 {
		for k := range tokens {
			if err := a.receive(k, a.c.recv[k], true); err != nil {
				return err
			}
		}
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go a.hear(conn)
	}
}

func (a *app) hear(conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	for {
		var b [16]byte
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return
		}
		if err := a.receive(int(binary.BigEndian.Uint64(b[:])), binary.BigEndian.Uint64(b[8:]), false); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

// receive writes a number down and lets it go on. While the filesystem is frozen the write waits.
func (a *app) receive(k int, n uint64, first bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n <= a.c.recv[k] && !first {
		return nil
	}
	c := a.c
	c.recv[k], c.sent[k] = n, n
	if a.s.Member == 0 {
		c.sent[k]++
	}
	if _, err := a.file.WriteAt(c.encode(), 0); err != nil {
		return err
	}
	a.c = c
	a.news.Broadcast()
	return nil
}

// send keeps the next member told, also of what it may have missed.
func (a *app) send() {
	for {
		conn, err := net.DialTimeout("tcp", a.s.Next, time.Second)
		if err != nil {
			time.Sleep(50 * time.Millisecond)
			continue
		}
		var told [tokens]uint64
		tick := time.AfterFunc(time.Second, a.news.Broadcast)
		for err == nil {
			a.mu.Lock()
			for a.c.sent == told && err == nil {
				tick.Reset(time.Second)
				a.news.Wait()
				if a.c.sent == told { // say something now and then, so that a dead link shows
					told[0] = 0
				}
			}
			now := a.c.sent
			a.mu.Unlock()
			var b []byte
			for k := range tokens {
				if now[k] != told[k] {
					b = binary.BigEndian.AppendUint64(b, uint64(k))
					b = binary.BigEndian.AppendUint64(b, now[k])
				}
			}
			told = now
			_ = conn.SetWriteDeadline(time.Now().Add(2 * time.Second))
			_, err = conn.Write(b)
			time.Sleep(time.Millisecond)
		}
		tick.Stop()
		_ = conn.Close()
	}
}
