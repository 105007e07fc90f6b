// franz-go: administration at any node, and a producer over a leader that is killed.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

func must(holds bool, what string, args ...any) {
	if !holds {
		fmt.Printf("FAILED "+what+"\n", args...)
		os.Exit(1)
	}
}

func main() {
	seeds := strings.Split(os.Args[1], ",")
	kills := len(os.Args) > 2
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	client, err := kgo.NewClient(kgo.SeedBrokers(seeds...), kgo.ProducerBatchCompression(kgo.ZstdCompression()), kgo.ProducerLinger(0))
	must(err == nil, "a client: %v", err)
	admin := kadm.NewClient(client)
	value := func(s string) *string { return &s }

	// Administration, which kadm sends to any node.
	made, err := admin.CreateTopic(ctx, 3, -1, map[string]*string{"segment.ms": value("1000"), "cleanup.policy": value("delete")}, "t")
	must(err == nil && made.Err == nil && made.ReplicationFactor == int16(len(seeds)), "a topic with %d replicas: %+v %v", len(seeds), made, err)
	for i := 0; i < 6; i++ {
		altered, err := admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Name: "retention.ms", Value: value("7000000")}}, "t")
		must(err == nil && altered[0].Err == nil, "settings are changed at any node: %v %+v", err, altered)
	}
	groups, err := admin.ListGroups(ctx)
	must(err == nil, "groups are listed at every node: %v %v", err, groups)
	described, err := admin.DescribeTopicConfigs(ctx, "t")
	must(err == nil, "settings are described: %v", err)
	_, err = described.On("t", func(r *kadm.ResourceConfig) error {
		for _, c := range r.Configs {
			if c.Key == "segment.ms" {
				must(*c.Value == "1000", "a setting that changes nothing is given back: %s", *c.Value)
				return nil
			}
		}
		return fmt.Errorf("segment.ms is not there")
	})
	must(err == nil, "%v", err)
	_, err = admin.ListLocalLogStartOffsets(ctx, "t")
	must(err == nil, "local starts: %v", err)
	fmt.Println("  ok administration")

	// Values that compress well.
	even := strings.Repeat("x", 128)
	records := make([]*kgo.Record, 50_000)
	for i := range records {
		records[i] = &kgo.Record{Topic: "t", Partition: 0, Value: []byte(even)}
	}
	err = client.ProduceSync(ctx, records...).FirstErr()
	must(err == nil, "equal values: %v", err)
	fmt.Println("  ok values that compress well")

	if kills {
		_, err = admin.CreateTopic(ctx, 6, -1, nil, "killed")
		must(err == nil, "the topic is made: %v", err)
		must(client.ProduceSync(ctx, &kgo.Record{Topic: "killed", Value: []byte("first")}).FirstErr() == nil, "the first record")
		fmt.Println("KILL")
		last, longest, n := time.Now(), time.Duration(0), 1
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); n++ {
			err := client.ProduceSync(ctx, &kgo.Record{Topic: "killed", Value: []byte(fmt.Sprint(n))}).FirstErr()
			must(err == nil, "a record is taken: %v", err)
			longest = max(longest, time.Since(last))
			last = time.Now()
		}
		ends, err := admin.ListEndOffsets(ctx, "killed")
		must(err == nil, "ends: %v", err)
		stored := int64(0)
		ends.Each(func(o kadm.ListedOffset) { stored += o.Offset })
		must(stored == int64(n), "%d were acknowledged, %d are stored", n, stored)
		fmt.Printf("  ok a killed leader: %d records, the longest wait %v\n", n, longest.Round(time.Millisecond))
	}
	client.Close()
	fmt.Println("PASSED franz-go")
}
