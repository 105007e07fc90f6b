// sarama: administration at any node, a producer and a group of consumers.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/IBM/sarama"
)

func must(holds bool, what string, args ...any) {
	if !holds {
		fmt.Printf("FAILED "+what+"\n", args...)
		os.Exit(1)
	}
}

type reader struct{ got chan string }

func (r *reader) Setup(sarama.ConsumerGroupSession) error   { return nil }
func (r *reader) Cleanup(sarama.ConsumerGroupSession) error { return nil }
func (r *reader) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for message := range claim.Messages() {
		r.got <- string(message.Value)
		session.MarkMessage(message, "")
	}
	return nil
}

func main() {
	seeds := strings.Split(os.Args[1], ",")
	kills := len(os.Args) > 2
	config := sarama.NewConfig()
	config.Version = sarama.V4_0_0_0
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Return.Successes = true
	config.Producer.Retry.Max = 50
	config.Producer.Idempotent = true
	config.Net.MaxOpenRequests = 1
	config.Consumer.Offsets.Initial = sarama.OffsetOldest

	admin, err := sarama.NewClusterAdmin(seeds, config)
	must(err == nil, "an admin: %v", err)
	segment := "104857600"
	detail := &sarama.TopicDetail{NumPartitions: 2, ReplicationFactor: -1, ConfigEntries: map[string]*string{"segment.bytes": &segment}}
	must(admin.CreateTopic("t", detail, false) == nil, "a topic is made")
	retention := "7000000"
	err = admin.AlterConfig(sarama.TopicResource, "t", map[string]*string{"retention.ms": &retention}, false)
	must(err == nil, "AlterConfig: %v", err)
	err = admin.IncrementalAlterConfig(sarama.TopicResource, "t", map[string]sarama.IncrementalAlterConfigsEntry{
		"retention.ms": {Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &retention}}, false)
	must(err == nil, "IncrementalAlterConfig: %v", err)
	_, err = admin.ListConsumerGroups()
	must(err == nil, "groups are listed: %v", err)
	fmt.Println("  ok administration")

	producer, err := sarama.NewSyncProducer(seeds, config)
	must(err == nil, "a producer: %v", err)
	total := 500
	if kills {
		fmt.Println("KILL")
		total = 3000
	}
	for i := 0; i < total; i++ {
		_, _, err := producer.SendMessage(&sarama.ProducerMessage{Topic: "t", Value: sarama.StringEncoder(fmt.Sprint(i))})
		must(err == nil, "record %d: %v", i, err)
		if kills {
			time.Sleep(2 * time.Millisecond)
		}
	}
	fmt.Println("  ok producer")

	group, err := sarama.NewConsumerGroup(seeds, "g", config)
	must(err == nil, "a group: %v", err)
	read := &reader{make(chan string, 100)}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		for ctx.Err() == nil {
			_ = group.Consume(ctx, []string{"t"}, read)
		}
	}()
	seen, late := map[string]int{}, time.After(60*time.Second)
	for len(seen) < total {
		select {
		case value := <-read.got:
			seen[value]++
			must(seen[value] == 1, "%s came twice", value)
		case <-late:
			must(false, "%d of %d came", len(seen), total)
		}
	}
	cancel()
	fmt.Println("  ok group")
	fmt.Println("PASSED sarama")
}
