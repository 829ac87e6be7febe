package dr

import (
	"errors"
	"fmt"
)

// Code tells a program what kind of refusal it met. There are few and they are stable.
type Code string

const (
	CodeInvalid            Code = "invalid"             // the request is wrong whatever the state
	CodeNotFound           Code = "not_found"           // the named thing does not exist
	CodeConflict           Code = "conflict"            // another operation runs, or the thing is in use or in the wrong state
	CodePreconditionFailed Code = "precondition_failed" // a version given by the caller is not the current one
	CodeFenced             Code = "fenced"              // the caller was replaced
	CodeUnauthenticated    Code = "unauthenticated"     // no valid credential
	CodeForbidden          Code = "forbidden"           // the role does not allow it
	CodeUnavailable        Code = "unavailable"         // a part is down; try again
	CodeExhausted          Code = "exhausted"           // a limit was met; try again later
	CodeCorrupt            Code = "corrupt"             // stored bytes are not what was written
	CodeUnimplemented      Code = "unimplemented"       // no driver for it
	CodeInternal           Code = "internal"            // a fault of ours
)

// Error has three readers: Code is for the program, Message, PossibleCauses and RecommendedAction are for the operator, Err
// is for the developer and never shown outside.
type Error struct {
	Code              Code
	Message           string
	PossibleCauses    string
	RecommendedAction string
	Err               error
}

func (e *Error) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s: %s: %v", e.Code, e.Message, e.Err)
	}
	return fmt.Sprintf("%s: %s", e.Code, e.Message)
}

func (e *Error) Unwrap() error { return e.Err }

// CodeOf returns the code of the first *Error in err's chain, CodeInternal when there is none, and "" for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return CodeInternal
}

// Retryable tells whether trying again can help.
func Retryable(err error) bool {
	c := CodeOf(err)
	return c == CodeUnavailable || c == CodeExhausted
}
