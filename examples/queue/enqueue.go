// Hands a message to Fanfare's durable queue with one XADD, without its HTTP API. It speaks to one
// server with nothing but the standard library; a program would take a client such as go-redis.
//
//	go run enqueue.go 127.0.0.1:6379 high orders:7 '{"state": "paid"}'
//	go run enqueue.go --partition orders:7 @alice
package main

import (
	"bufio"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
)

const app, prefix, partitions = "default", "ff", 256 // of the app, redis.prefix, redis.partitions

var priorities = []string{"critical", "high", "normal", "low"}

// partition is that of a topic, or of a user's inbox as `@USER`.
func partition(name string) uint32 {
	return crc32.ChecksumIEEE([]byte(app+":"+name)) % partitions
}

// enqueue gives the entry's id once Redis has it. `data` is JSON text.
func enqueue(redis *bufio.ReadWriter, priority, name, data string, more ...string) (string, error) {
	if !slices.Contains(priorities, priority) { // Nobody looks into a stream of another name.
		return "", fmt.Errorf("the priority must be one of %s, not %q", strings.Join(priorities, ", "), priority)
	}
	n := partition(name)
	kind, target := "topic", name
	if strings.HasPrefix(name, "@") && name != "@" {
		kind, target = "user", name[1:]
	}
	key := fmt.Sprintf("%s:q:{%d}:%s", prefix, n, priority)
	fields := append([]string{"XADD", key, "*", kind, target, "data", data}, more...)
	entry, err := command(redis, fields...)
	if err != nil {
		return "", err
	}
	// Not needed: it is seen within a second without. In a Redis Cluster: SPUBLISH.
	_, err = command(redis, "PUBLISH", fmt.Sprintf("%s:{%d}:bell", prefix, n), priority)
	return entry, err
}

// command sends one command and reads an answer that is a number, a line or a text.
func command(redis *bufio.ReadWriter, parts ...string) (string, error) {
	fmt.Fprintf(redis, "*%d\r\n", len(parts))
	for _, part := range parts {
		fmt.Fprintf(redis, "$%d\r\n%s\r\n", len(part), part)
	}
	if err := redis.Flush(); err != nil {
		return "", err
	}
	line, err := redis.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimRight(line, "\r\n")
	switch line[0] {
	case '-':
		return "", fmt.Errorf("%s", line[1:])
	case '$':
		length, err := strconv.Atoi(line[1:])
		if err != nil {
			return "", err
		}
		text := make([]byte, length+2)
		_, err = io.ReadFull(redis, text)
		return string(text[:length]), err
	}
	return line[1:], nil
}

func main() {
	arguments := os.Args[1:]
	if len(arguments) > 0 && arguments[0] == "--partition" {
		for _, name := range arguments[1:] {
			fmt.Println(name, partition(name))
		}
		return
	}
	if len(arguments) != 4 {
		fmt.Fprintln(os.Stderr, "give HOST:PORT PRIORITY TOPIC DATA")
		os.Exit(64)
	}
	socket, err := net.Dial("tcp", arguments[0])
	if err == nil {
		redis := bufio.NewReadWriter(bufio.NewReader(socket), bufio.NewWriter(socket))
		var entry string
		if entry, err = enqueue(redis, arguments[1], arguments[2], arguments[3]); err == nil {
			fmt.Println(entry)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
