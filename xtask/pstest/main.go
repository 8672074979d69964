// A Pub/Sub server for tests: Google's own in-memory fake as a program, with what the fake lacks: streams that are as fast as
// their readers and keep to their bounds, and the REST interface for topics and subscriptions, which clients use beside gRPC on
// the same port.
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
	"time"

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
	flow := &flow{fake: &fake.GServer, leases: map[string]lease{}, changed: make(chan struct{})}
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

// Messages of one response of a stream at most, so that streams of one subscription share what waits.
const maxPulled = 16

// How long a lease that ended may go unnoticed.
const look = 10 * time.Millisecond

// Streams of messages, made of the fake's single pulls: its own streams are given one message every ten milliseconds, and as
// many as they can take. Who holds which message is known here, so that a stream is sent no more than it asked for. Pub/Sub
// lets a stream exceed its bound of bytes by one message; so does this.
type flow struct {
	fake    *pstest.GServer
	mu      sync.Mutex
	leases  map[string]lease
	changed chan struct{}
}

// Who was handed a message last, under which id of that delivery.
type lease struct {
	*holder
	id   string
	size int64
}

// A stream's share.
type holder struct {
	flow         *flow
	stream       grpc.ServerStream
	subscription string
	messages     int64
	bytes        int64
	deadline     int32
	properties   *pb.StreamingPullResponse_SubscriptionProperties
	sending      sync.Mutex
	held         int64
	heldBytes    int64
}

// What is published, and verdicts, which make room in whatever stream the message went to.
func (f *flow) unary(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	response, err := handler(ctx, request)
	if err != nil {
		return response, err
	}
	switch r := request.(type) {
	case *pb.PublishRequest:
		f.settled("", nil)
	case *pb.AcknowledgeRequest:
		f.settled(r.Subscription, r.AckIds)
	case *pb.ModifyAckDeadlineRequest:
		if r.AckDeadlineSeconds == 0 {
			f.settled(r.Subscription, r.AckIds)
		}
	}
	return response, err
}

// Whoever holds these messages holds them no more, and every stream looks again.
func (f *flow) settled(subscription string, ids []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range ids {
		key := key(subscription, id)
		if f.leases[key].id == id {
			f.release(key)
		}
	}
	close(f.changed)
	f.changed = make(chan struct{})
}

// The lock is the caller's.
func (f *flow) release(key string) {
	if l, known := f.leases[key]; known {
		l.held--
		l.heldBytes -= l.size
		delete(f.leases, key)
	}
}

// A message of a subscription, by the id of one of its deliveries, which is the message's with a number behind it.
func key(subscription, id string) string {
	return subscription + "\n" + id[:max(strings.LastIndex(id, ":"), 0)]
}

func (f *flow) stream(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if !strings.HasSuffix(info.FullMethod, "/StreamingPull") {
		return handler(server, stream)
	}
	first := &pb.StreamingPullRequest{}
	if err := stream.RecvMsg(first); err != nil {
		return err
	}
	// Reading needs no right to look, and if the subscription is not there the first pull says so.
	subscription, _ := f.fake.GetSubscription(stream.Context(), &pb.GetSubscriptionRequest{Subscription: first.Subscription})
	h := &holder{
		flow:         f,
		stream:       stream,
		subscription: first.Subscription,
		messages:     first.MaxOutstandingMessages,
		bytes:        first.MaxOutstandingBytes,
		deadline:     first.StreamAckDeadlineSeconds,
		properties: &pb.StreamingPullResponse_SubscriptionProperties{
			ExactlyOnceDeliveryEnabled: subscription.GetEnableExactlyOnceDelivery(),
			MessageOrderingEnabled:     subscription.GetEnableMessageOrdering(),
		},
	}
	ended := make(chan error, 1)
	go func() { ended <- h.requests(first.ProtocolVersion >= 1) }()
	for {
		f.mu.Lock()
		changed := f.changed
		f.mu.Unlock()
		sent, err := h.deliver()
		if err != nil {
			return err
		}
		if sent {
			changed = nil
		}
		select {
		case err := <-ended:
			if err == io.EOF {
				err = nil
			}
			return err
		default:
		}
		if changed == nil {
			continue
		}
		select {
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-changed:
		case <-time.After(look):
		}
	}
}

// Verdicts and pings of a stream. A ping is a request without anything to do; some versions of the protocol want an answer.
func (h *holder) requests(pings bool) error {
	for {
		request := &pb.StreamingPullRequest{}
		if err := h.stream.RecvMsg(request); err != nil {
			return err
		}
		if len(request.AckIds) == 0 && len(request.ModifyDeadlineAckIds) == 0 && pings {
			if err := h.send(&pb.StreamingPullResponse{}); err != nil {
				return err
			}
		}
		if len(request.AckIds) > 0 {
			acknowledge := &pb.AcknowledgeRequest{Subscription: h.subscription, AckIds: request.AckIds}
			if _, err := h.flow.fake.Acknowledge(h.stream.Context(), acknowledge); err != nil {
				return err
			}
			h.flow.settled(h.subscription, request.AckIds)
		}
		for at, id := range request.ModifyDeadlineAckIds {
			if err := h.extend([]string{id}, request.ModifyDeadlineSeconds[at]); err != nil {
				return err
			}
			if request.ModifyDeadlineSeconds[at] == 0 {
				h.flow.settled(h.subscription, []string{id})
			}
		}
	}
}

// Sends as much as waits and has room, and tells whether that was anything.
func (h *holder) deliver() (bool, error) {
	h.flow.mu.Lock()
	room := int32(maxPulled)
	if h.messages > 0 {
		room = int32(min(maxPulled, h.messages-h.held))
	}
	if h.full() {
		room = 0
	}
	h.flow.mu.Unlock()
	if room <= 0 {
		return false, nil
	}
	request := &pb.PullRequest{Subscription: h.subscription, MaxMessages: room, ReturnImmediately: true}
	pulled, err := h.flow.fake.Pull(h.stream.Context(), request)
	if err != nil {
		return false, err
	}
	response := &pb.StreamingPullResponse{SubscriptionProperties: h.properties}
	var back, taken []string
	for _, received := range pulled.ReceivedMessages {
		if h.take(received) {
			response.ReceivedMessages = append(response.ReceivedMessages, received)
			taken = append(taken, received.AckId)
		} else {
			back = append(back, received.AckId)
		}
	}
	if len(back) > 0 {
		if err := h.extend(back, 0); err != nil {
			return false, err
		}
	}
	if len(taken) == 0 {
		return false, nil
	}
	if h.deadline > 0 {
		if err := h.extend(taken, h.deadline); err != nil {
			return false, err
		}
	}
	return true, h.send(response)
}

func (h *holder) extend(ids []string, seconds int32) error {
	request := &pb.ModifyAckDeadlineRequest{Subscription: h.subscription, AckIds: ids, AckDeadlineSeconds: seconds}
	_, err := h.flow.fake.ModifyAckDeadline(h.stream.Context(), request)
	return err
}

// A stream takes one message at a time.
func (h *holder) send(m any) error {
	h.sending.Lock()
	defer h.sending.Unlock()
	return h.stream.SendMsg(m)
}

func (h *holder) take(received *pb.ReceivedMessage) bool {
	h.flow.mu.Lock()
	defer h.flow.mu.Unlock()
	if h.full() {
		return false
	}
	// Who held it before lost it with its lease.
	key := key(h.subscription, received.AckId)
	h.flow.release(key)
	size := int64(proto.Size(received.Message))
	h.held++
	h.heldBytes += size
	h.flow.leases[key] = lease{h, received.AckId, size}
	return true
}

func (h *holder) full() bool {
	return h.messages > 0 && h.held >= h.messages || h.bytes > 0 && h.heldBytes >= h.bytes
}
