// Package sdk is the Go client of Lifeboat's REST API: it names the vault once, retries what is worth retrying, walks pages,
// and waits for jobs. It owns no rules of its own: what may be done to a machine is decided by the server, and what the server
// refuses comes back as *Error with its cause and its remedy. It imports nothing of Lifeboat but the code generated from the
// document (package oas), and must never read or write anything but the API and the files that Config names.
package sdk
