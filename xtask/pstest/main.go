// A Pub/Sub server for tests: Google's own in-memory fake as a program, with what the fake lacks: flow control, answers to
// pings that wait for nobody, and the REST interface for topics and subscriptions, which clients use beside gRPC on the same
// port.
//
// pstest HOST:PORT [METHOD=CODE ...] listens there; each METHOD=CODE makes every call of that method fail with that gRPC
// status code.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"

	pb "cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	pbcode "google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// What Pub/Sub takes in one request, with room for the frame around it.
const maxRequest = 10<<20 + 4096

func main() {
	var options []pstest.ServerReactorOption
	for _, argument := range os.Args[2:] {
		method, text, _ := strings.Cut(argument, "=")
		code, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			log.Fatalln("expected METHOD=CODE, not", argument)
		}
		options = append(options, pstest.WithErrorInjection(method, codes.Code(code), "as the test asked"))
	}
	fake := pstest.NewServer(options...)
	flow := &flow{fake: &fake.GServer, holders: map[string]*holder{}}
	server := grpc.NewServer(
		grpc.MaxRecvMsgSize(maxRequest),
		grpc.UnaryInterceptor(flow.unary),
		grpc.StreamInterceptor(flow.stream),
	)
	pb.RegisterPublisherServer(server, &fake.GServer)
	pb.RegisterSubscriberServer(server, &fake.GServer)
	listener, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		log.Fatalln(err)
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	rest := rest{&fake.GServer, &fake.GServer}
	front := &http.Server{Protocols: protocols, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			server.ServeHTTP(w, r)
		} else {
			rest.serve(w, r)
		}
	})}
	fmt.Println("ready at", listener.Addr())
	log.Fatalln(front.Serve(listener))
}

// Topics and subscriptions by REST: https://cloud.google.com/pubsub/docs/reference/rest.
type rest struct {
	topics        pb.PublisherServer
	subscriptions pb.SubscriberServer
}

func (s rest) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxRequest))
	var answer proto.Message
	if err == nil {
		answer, err = s.answer(r.Context(), r.Method, strings.TrimPrefix(r.URL.Path, "/v1/"), body)
	}
	w.Header().Set("Content-Type", "application/json")
	var text []byte
	if err == nil {
		text, err = protojson.Marshal(answer)
	}
	if err != nil {
		known := status.Convert(err)
		code := httpStatus(known.Code())
		text, _ = json.Marshal(map[string]any{"error": map[string]any{
			"code": code, "message": known.Message(), "status": pbcode.Code(known.Code()).String(),
		}})
		w.WriteHeader(code)
	}
	w.Write(text)
}

func (s rest) answer(ctx context.Context, method, name string, body []byte) (proto.Message, error) {
	parts := strings.Split(name, "/")
	if len(parts) < 4 {
		return nil, status.Error(codes.Unimplemented, name)
	}
	read := protojson.UnmarshalOptions{DiscardUnknown: true}
	switch method + " " + strings.Join(append([]string{parts[2]}, parts[4:]...), "/") {
	case "GET topics":
		return s.topics.GetTopic(ctx, &pb.GetTopicRequest{Topic: name})
	case "GET topics/subscriptions":
		topic := strings.Join(parts[:4], "/")
		return s.topics.ListTopicSubscriptions(ctx, &pb.ListTopicSubscriptionsRequest{Topic: topic})
	case "PUT topics":
		topic := &pb.Topic{}
		if err := read.Unmarshal(body, topic); err != nil {
			return nil, status.Error(codes.InvalidArgument, err.Error())
		}
		topic.Name = name
		return s.topics.CreateTopic(ctx, topic)
	case "DELETE topics":
		return s.topics.DeleteTopic(ctx, &pb.DeleteTopicRequest{Topic: name})
	case "GET subscriptions":
		return s.subscriptions.GetSubscription(ctx, &pb.GetSubscriptionRequest{Subscription: name})
	case "PUT subscriptions":
		subscription := &pb.Subscription{}
		if err := read.Unmarshal(body, subscription); err != nil {
			return nil, status.Error(codes.InvalidArgument, err.Error())
		}
		subscription.Name = name
		return s.subscriptions.CreateSubscription(ctx, subscription)
	case "DELETE subscriptions":
		return s.subscriptions.DeleteSubscription(ctx, &pb.DeleteSubscriptionRequest{Subscription: name})
	}
	return nil, status.Error(codes.Unimplemented, method+" "+name)
}

// As google.rpc.Code maps its values.
func httpStatus(code codes.Code) int {
	switch code {
	case codes.NotFound:
		return http.StatusNotFound
	case codes.AlreadyExists, codes.Aborted:
		return http.StatusConflict
	case codes.PermissionDenied:
		return http.StatusForbidden
	case codes.Unauthenticated:
		return http.StatusUnauthorized
	case codes.ResourceExhausted:
		return http.StatusTooManyRequests
	case codes.InvalidArgument, codes.FailedPrecondition, codes.OutOfRange:
		return http.StatusBadRequest
	case codes.Unimplemented:
		return http.StatusNotImplemented
	case codes.Unavailable:
		return http.StatusServiceUnavailable
	case codes.DeadlineExceeded:
		return http.StatusGatewayTimeout
	}
	return http.StatusInternalServerError
}

// Who holds which message, so that a stream is sent no more than it asked for. Pub/Sub lets a stream exceed its bound of
// bytes by one message; so does this.
type flow struct {
	fake    pb.SubscriberServer
	mu      sync.Mutex
	holders map[string]*holder
}

// A stream's share.
type holder struct {
	grpc.ServerStream
	flow         *flow
	subscription string
	messages     int64
	bytes        int64
	held         map[string]int64
	heldBytes    int64
	pings        bool
	sending      sync.Mutex
	room         *sync.Cond
	over         bool
}

func (f *flow) stream(server any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	h := &holder{ServerStream: stream, flow: f, held: map[string]int64{}, room: sync.NewCond(&f.mu)}
	context.AfterFunc(stream.Context(), func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		h.over = true
		h.room.Broadcast()
	})
	return handler(server, h)
}

// A verdict makes room in whatever stream the message went to.
func (f *flow) unary(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	response, err := handler(ctx, request)
	if err != nil {
		return response, err
	}
	switch r := request.(type) {
	case *pb.AcknowledgeRequest:
		f.settled(r.Subscription, r.AckIds)
	case *pb.ModifyAckDeadlineRequest:
		if r.AckDeadlineSeconds == 0 {
			f.settled(r.Subscription, r.AckIds)
		}
	}
	return response, err
}

func (f *flow) settled(subscription string, ids []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range ids {
		f.release(subscription, id)
	}
}

// Whoever holds the message holds it no more. The lock is the caller's.
func (f *flow) release(subscription, id string) {
	key := subscription + "\n" + id
	if h := f.holders[key]; h != nil {
		h.heldBytes -= h.held[id]
		delete(h.held, id)
		delete(f.holders, key)
		h.room.Broadcast()
	}
}

// The first request says how much the stream may hold, and whether pings, which are requests without anything to do, are
// to be answered. The fake would answer them itself, but with all of it locked while it waits for the one who sends: for ever
// if that one has ended, or waits for room that only verdicts make.
func (h *holder) RecvMsg(m any) error {
	for {
		if err := h.ServerStream.RecvMsg(m); err != nil {
			return err
		}
		request, ok := m.(*pb.StreamingPullRequest)
		if !ok || len(request.AckIds) > 0 || len(request.ModifyDeadlineAckIds) > 0 {
			return nil
		}
		if request.Subscription != "" {
			h.subscription = request.Subscription
			h.messages, h.bytes = request.MaxOutstandingMessages, request.MaxOutstandingBytes
			h.pings = request.ProtocolVersion >= 1
			return nil
		}
		if h.pings {
			if err := h.send(&pb.StreamingPullResponse{}); err != nil {
				return err
			}
		}
	}
}

// A stream takes one message at a time.
func (h *holder) send(m any) error {
	h.sending.Lock()
	defer h.sending.Unlock()
	return h.ServerStream.SendMsg(m)
}

// The fake hands over one message at a time, and hands it to another stream while nobody takes it here. So what has no
// room goes back, and nothing is taken until there is room.
func (h *holder) SendMsg(m any) error {
	response, ok := m.(*pb.StreamingPullResponse)
	if !ok || len(response.ReceivedMessages) == 0 {
		return h.send(m)
	}
	received := response.ReceivedMessages[0]
	if h.take(received) {
		return h.send(m)
	}
	back := &pb.ModifyAckDeadlineRequest{Subscription: h.subscription, AckIds: []string{received.AckId}}
	if _, err := h.flow.fake.ModifyAckDeadline(h.Context(), back); err != nil {
		return err
	}
	h.flow.mu.Lock()
	defer h.flow.mu.Unlock()
	for h.full() && !h.over {
		h.room.Wait()
	}
	return h.Context().Err()
}

func (h *holder) take(received *pb.ReceivedMessage) bool {
	h.flow.mu.Lock()
	defer h.flow.mu.Unlock()
	if h.full() {
		return false
	}
	// It comes again because the time of whoever held it is over; a delivery has no id of its own here.
	h.flow.release(h.subscription, received.AckId)
	size := int64(proto.Size(received.Message))
	h.held[received.AckId] = size
	h.heldBytes += size
	h.flow.holders[h.subscription+"\n"+received.AckId] = h
	return true
}

func (h *holder) full() bool {
	return h.messages > 0 && int64(len(h.held)) >= h.messages || h.bytes > 0 && h.heldBytes >= h.bytes
}
