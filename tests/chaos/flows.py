"""The flows that are interrupted, and which effects each event of them must have."""

from __future__ import annotations

LOAD = """
schema: 1
name: Load
triggers:
  - {id: hook, piece: webhook, event: catch, input: {idempotency_header: x-event-id}}
steps:
  - id: plan
    kind: code
    language: typescript
    input: {event: '{{trigger.body}}'}
    source: |
      interface Event { id: string; items: number }
      export const code = async ({ event }: { event: Event }) => ({
        kind: event.items % 2 === 0 ? 'even' : 'odd',
        items: Array.from({ length: event.items }, (_, index) => index),
      })
  - id: way
    kind: router
    mode: first_match
    branches:
      - name: Even
        when: [[{left: '{{plan.kind}}', op: equals, right: even}]]
        steps:
          - id: first
            kind: action
            piece: http
            action: request
            input: {method: POST, url: '{{trigger.body.ledger}}', body: {event: '{{trigger.body.id}}', item: -1}}
            retry: {max_attempts: 9, initial_interval: 100ms, backoff: 1.5}
            timeout: 30s
      - name: Otherwise
        fallback: true
  - id: each
    kind: loop
    items: '{{plan.items}}'
    concurrency: 2
    collect: '{{call.status}}'
    steps:
      - id: call
        kind: action
        piece: http
        action: request
        input:
          method: POST
          url: '{{trigger.body.ledger}}'
          body: {event: '{{trigger.body.id}}', item: '{{each.item}}'}
        retry: {max_attempts: 9, initial_interval: 100ms, backoff: 1.5}
        timeout: 30s
  - id: total
    kind: action
    piece: store
    action: increment
    input: {key: total, by: 1}
  - id: answer
    kind: respond
    status: 200
    body: {event: '{{trigger.body.id}}', calls: '{{each.items}}'}
"""
"""One event with `items: n` calls the ledger n times, once more when n is even, and counts itself in the store."""

STORY = """
schema: 1
name: Tasks of a push
triggers:
  - {id: push, piece: webhook, event: catch, input: {auth: header, secret: '{{connections.github.secret}}'}}
steps:
  - id: plan
    kind: code
    language: typescript
    input: {push: '{{trigger.body}}'}
    source: |
      interface Push { id: string; titles: string[] }
      export const code = async ({ push }: { push: Push }) => {
        console.log(`${push.titles.length} tasks`)
        return { urgent: push.titles.length > 3, tasks: push.titles.map((title, item) => ({ title, item })) }
      }
  - id: way
    kind: router
    mode: first_match
    branches:
      - name: Urgent
        when: [[{left: '{{plan.urgent}}', op: is_true}]]
        steps:
          - id: warning
            kind: action
            piece: data
            action: set
            input: {fields: {text: 'Hurry: {{plan.tasks[0].title}}'}}
      - name: Otherwise
        fallback: true
  - id: each
    kind: loop
    items: '{{plan.tasks}}'
    collect: '{{each.item.title}}'
    steps:
      - id: add
        kind: action
        piece: http
        action: request
        input:
          method: POST
          url: '{{trigger.body.ledger}}'
          headers: {x-board-key: '{{connections.github.secret}}'}
          body: {event: '{{trigger.body.id}}', item: '{{each.item.item}}'}
        retry: {max_attempts: 5, initial_interval: 1s}
        timeout: 30s
  - id: answer
    kind: respond
    status: 200
    body: {warning: '{{warning.text}}', tasks: '{{each.items}}'}
"""
"""The story of the README, with calls to the ledger."""


def expected_items(items: int) -> set[int]:
    """The effects of one event of `LOAD`."""
    return set(range(items)) | ({-1} if items % 2 == 0 else set())
