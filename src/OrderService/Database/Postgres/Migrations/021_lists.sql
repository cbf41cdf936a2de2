-- Lists by state, by customer and by time read along an index, whatever they are asked for together: one range for each state, merged.
CREATE INDEX orders_by_status ON orders (status, placed_at, seq);
DROP INDEX orders_by_customer;
CREATE INDEX orders_by_customer ON orders (customer_id, status, placed_at, seq);

-- What people look for among letters.
CREATE INDEX dead_letters_by_message ON dead_letters (message_id) WHERE message_id IS NOT NULL;
CREATE INDEX dead_letters_by_correlation ON dead_letters (correlation_id) WHERE correlation_id IS NOT NULL;
CREATE INDEX dead_letters_by_customer ON dead_letters (customer_id) WHERE customer_id IS NOT NULL;
CREATE INDEX dead_letters_by_detail ON dead_letters (substr(detail, 1, 500));
CREATE INDEX dead_letters_newest ON dead_letters (status, parked_at);
CREATE INDEX history_by_letter ON history (letter_id) WHERE letter_id IS NOT NULL;
