<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE TS>
<TS version="2.1" language="ko_KR">
<context>
    <name>Chart</name>
    <message>
        <source>Latest ▸</source>
        <translation>최신 ▸</translation>
    </message>
    <message>
        <source>Back to the newest candle (End)</source>
        <translation>최신 캔들로 (End)</translation>
    </message>
    <message>
        <source>O</source>
        <translation>시</translation>
    </message>
    <message>
        <source>H</source>
        <translation>고</translation>
    </message>
    <message>
        <source>L</source>
        <translation>저</translation>
    </message>
    <message>
        <source>C</source>
        <translation>종</translation>
    </message>
    <message>
        <source>vs prev.</source>
        <translation>전봉 대비</translation>
    </message>
    <message>
        <source>Vol</source>
        <translation>거래량</translation>
    </message>
    <message>
        <source>SIMULATED</source>
        <translation>모의 · SIMULATED</translation>
    </message>
    <message>
        <source>◌ Loading history…</source>
        <translation>◌ 과거 캔들을 불러오는 중…</translation>
    </message>
    <message>
        <source>History could not be loaded</source>
        <translation>과거 캔들을 불러오지 못했습니다</translation>
    </message>
    <message>
        <source>This chart is full: choose a longer timeframe</source>
        <translation>차트가 가득 찼습니다. 더 긴 주기를 고르세요</translation>
    </message>
    <message>
        <source>Start of history</source>
        <translation>첫 캔들입니다</translation>
    </message>
    <message>
        <source>Loading candles…</source>
        <translation>캔들을 불러오는 중…</translation>
    </message>
    <message>
        <source>The candles could not be loaded</source>
        <translation>캔들을 불러오지 못했습니다</translation>
    </message>
    <message>
        <source>No candles: nothing was traded here yet</source>
        <translation>캔들 없음: 아직 체결된 적이 없습니다</translation>
    </message>
</context>
<context>
    <name>ClockNotice</name>
    <message>
        <source>{0} s</source>
        <translation>{0}초</translation>
    </message>
    <message>
        <source>{0} min</source>
        <translation>{0}분</translation>
    </message>
    <message>
        <source>{0} h</source>
        <translation>{0}시간</translation>
    </message>
    <message>
        <source>This computer&apos;s clock is {0} slow. The exchange&apos;s time is used.</source>
        <translation>이 컴퓨터의 시계가 {0} 늦습니다. 거래소의 시각을 사용합니다.</translation>
    </message>
    <message>
        <source>This computer&apos;s clock is {0} fast. The exchange&apos;s time is used.</source>
        <translation>이 컴퓨터의 시계가 {0} 빠릅니다. 거래소의 시각을 사용합니다.</translation>
    </message>
</context>
<context>
    <name>Desktop</name>
    <message>
        <source>Trying to reach Upbit…</source>
        <translation>업비트에 연결해 보는 중…</translation>
    </message>
    <message>
        <source>Upbit cannot be reached: this is what was stored before. For a simulated market start: {0}</source>
        <translation>업비트에 연결할 수 없어 저장된 시세를 보여 줍니다. 모의 거래소로 시작하려면: {0}</translation>
    </message>
    <message>
        <source>Upbit cannot be reached: a simulator was started instead.</source>
        <translation>업비트에 연결할 수 없어 모의 거래소를 시작했습니다.</translation>
    </message>
    <message>
        <source>The service did not start because of an unexpected error; try again.</source>
        <translation>예상하지 못한 오류로 서비스가 시작되지 않았습니다. 다시 시도해 주세요.</translation>
    </message>
    <message>
        <source>The recording&apos;s end is missing: it has {0} seconds.</source>
        <translation>기록의 끝이 없습니다: {0}초까지만 있습니다.</translation>
    </message>
    <message>
        <source>{0} is shown instead.</source>
        <translation>대신 {0}을(를) 보여 줍니다.</translation>
    </message>
</context>
<context>
    <name>EventList</name>
    <message>
        <source>All</source>
        <translation>전체</translation>
    </message>
    <message>
        <source>Warnings and errors</source>
        <translation>경고와 오류</translation>
    </message>
    <message>
        <source>Errors</source>
        <translation>오류</translation>
    </message>
    <message>
        <source>Copy</source>
        <translation>복사</translation>
    </message>
    <message>
        <source>Copies the chosen rows, or all that are shown</source>
        <translation>고른 줄을, 고르지 않았으면 보이는 줄을 모두 복사합니다</translation>
    </message>
</context>
<context>
    <name>EventModel</name>
    <message>
        <source>Time (KST)</source>
        <translation>시각 (KST)</translation>
    </message>
    <message>
        <source>Severity</source>
        <translation>정도</translation>
    </message>
    <message>
        <source>Layer</source>
        <translation>계층</translation>
    </message>
    <message>
        <source>About</source>
        <translation>종류</translation>
    </message>
    <message>
        <source>Event</source>
        <translation>이벤트</translation>
    </message>
</context>
<context>
    <name>MainWindow</name>
    <message>
        <source>Closing…</source>
        <translation>종료 중…</translation>
    </message>
    <message>
        <source>View ▾</source>
        <translation>보기 ▾</translation>
    </message>
    <message>
        <source>SIMULATED — these prices come from a simulator, not from the exchange</source>
        <translation>모의 · SIMULATED — 실제 시세가 아닙니다. 모의 거래소가 만든 가격입니다</translation>
    </message>
    <message>
        <source>재생 · REPLAY — SIMULATED prices, recorded {0}, played at {1}×</source>
        <translation>재생 · REPLAY — 모의 · SIMULATED 가격입니다. {0} 기록, {1}배속</translation>
    </message>
    <message>
        <source>재생 · REPLAY — not live: recorded {0}, played at {1}×</source>
        <translation>재생 · REPLAY — 현재 시세가 아닙니다. {0} 기록, {1}배속</translation>
    </message>
    <message>
        <source>The service cannot say how it is doing: lights and figures are old. It is asked again each second.</source>
        <translation>서비스의 상태를 알 수 없어 표시등과 수치는 이전 값입니다. 1초마다 다시 확인합니다.</translation>
    </message>
    <message>
        <source>Offline: the exchange has not been reached since {0}. Prices are of that time; it is tried again all the time.</source>
        <translation>오프라인: {0}부터 거래소에 연결되지 않습니다. 가격은 그때의 것이며, 계속 다시 연결하고 있습니다.</translation>
    </message>
    <message>
        <source>The live connection was lost at {0}: prices may be old. Connecting again…</source>
        <translation>{0}에 실시간 연결이 끊겼습니다. 가격이 지난 것일 수 있습니다. 다시 연결하는 중…</translation>
    </message>
    <message>
        <source>The live connection was lost at {0}: prices are asked for once a second until it is back.</source>
        <translation>{0}에 실시간 연결이 끊겼습니다. 다시 연결될 때까지 1초마다 가격을 조회합니다.</translation>
    </message>
    <message>
        <source>Markets (KRW)</source>
        <translation>마켓 (원화)</translation>
    </message>
    <message>
        <source>Trades</source>
        <translation>체결</translation>
    </message>
    <message>
        <source>Monitor</source>
        <translation>모니터</translation>
    </message>
</context>
<context>
    <name>MarketList</name>
    <message>
        <source>Filter: name, code, initials</source>
        <translation>검색: 이름, 코드, 초성</translation>
    </message>
</context>
<context>
    <name>MarketTable</name>
    <message>
        <source>Market</source>
        <translation>종목</translation>
    </message>
    <message>
        <source>Price</source>
        <translation>현재가</translation>
    </message>
    <message>
        <source>Change</source>
        <translation>전일대비</translation>
    </message>
    <message>
        <source>Value</source>
        <translation>거래대금</translation>
    </message>
    <message>
        <source>Name and code of the market</source>
        <translation>한글명과 코드</translation>
    </message>
    <message>
        <source>Price of the last trade</source>
        <translation>마지막 체결가</translation>
    </message>
    <message>
        <source>Against the last price before 09:00 Korean time today</source>
        <translation>오늘 09:00(KST) 직전 가격 대비</translation>
    </message>
    <message>
        <source>Value of all trades of the last 24 hours</source>
        <translation>최근 24시간 누적 거래대금</translation>
    </message>
</context>
<context>
    <name>MessageBar</name>
    <message>
        <source>Dismiss</source>
        <translation>닫기</translation>
    </message>
    <message>
        <source>Details</source>
        <translation>자세히</translation>
    </message>
</context>
<context>
    <name>MonitorPanel</name>
    <message>
        <source>Load</source>
        <translation>부하</translation>
    </message>
    <message>
        <source>Calls/s</source>
        <translation>초당 호출</translation>
    </message>
    <message>
        <source>Hits</source>
        <translation>캐시 적중</translation>
    </message>
    <message>
        <source>since the start</source>
        <translation>시작 후</translation>
    </message>
    <message>
        <source>Since the start</source>
        <translation>시작 후 전체</translation>
    </message>
    <message>
        <source>recent</source>
        <translation>최근</translation>
    </message>
    <message>
        <source>File</source>
        <translation>파일</translation>
    </message>
    <message>
        <source>Candles</source>
        <translation>캔들</translation>
    </message>
    <message>
        <source>In memory</source>
        <translation>메모리</translation>
    </message>
    <message>
        <source>Self-audit</source>
        <translation>자체 검사</translation>
    </message>
    <message>
        <source>no sample of the stored candles was read again yet</source>
        <translation>저장된 캔들의 표본을 아직 다시 읽지 않았습니다</translation>
    </message>
    <message>
        <source>{0} stored candles were read again: {1} differed, {2} were gone, {3} were new</source>
        <translation>저장된 캔들 {0}개를 다시 읽었습니다: 다름 {1}개, 사라짐 {2}개, 새로 생김 {3}개</translation>
    </message>
    <message>
        <source>Memory</source>
        <translation>메모리</translation>
    </message>
    <message>
        <source>Disk</source>
        <translation>디스크</translation>
    </message>
    <message>
        <source>Exchange</source>
        <translation>거래소</translation>
    </message>
    <message>
        <source>Overview</source>
        <translation>요약</translation>
    </message>
    <message>
        <source>Calls</source>
        <translation>호출</translation>
    </message>
    <message>
        <source>Counts</source>
        <translation>통계</translation>
    </message>
    <message>
        <source>Log</source>
        <translation>기록</translation>
    </message>
    <message>
        <source>10 s</source>
        <translation>10초</translation>
    </message>
    <message>
        <source>5 min</source>
        <translation>5분</translation>
    </message>
    <message>
        <source>1 h</source>
        <translation>1시간</translation>
    </message>
    <message>
        <source>how far back latencies, rates and counts look</source>
        <translation>응답 시간과 빈도, 횟수를 세는 기간</translation>
    </message>
    <message>
        <source>Latency (ms)</source>
        <translation>응답 시간 (ms)</translation>
    </message>
    <message>
        <source>Last 5 minutes (KST)</source>
        <translation>최근 5분 (KST)</translation>
    </message>
    <message>
        <source>Answers from</source>
        <translation>응답한 곳</translation>
    </message>
    <message>
        <source>What happened</source>
        <translation>발생 횟수</translation>
    </message>
    <message>
        <source>Store</source>
        <translation>저장소</translation>
    </message>
    <message>
        <source>Who waits</source>
        <translation>기다리는 호출</translation>
    </message>
    <message>
        <source>Layers</source>
        <translation>계층</translation>
    </message>
    <message>
        <source>Priority</source>
        <translation>우선순위</translation>
    </message>
    <message>
        <source>Data</source>
        <translation>데이터</translation>
    </message>
    <message>
        <source>Path</source>
        <translation>경로</translation>
    </message>
    <message>
        <source>so many calls that {0} of them are measured</source>
        <translation>호출이 많아 {0}만 측정합니다</translation>
    </message>
    <message>
        <source>Promise</source>
        <translation>목표</translation>
    </message>
    <message>
        <source>what the p99 is promised to stay below, in ms</source>
        <translation>p99가 넘지 않을 목표값, ms</translation>
    </message>
    <message>
        <source>Count</source>
        <translation>건수</translation>
    </message>
    <message>
        <source>broken</source>
        <translation>어김</translation>
    </message>
    <message>
        <source>kept</source>
        <translation>지킴</translation>
    </message>
    <message>
        <source>{0} by {1}: p99 {2} ms, promised are {3} ms</source>
        <translation>{0}, {1}: p99 {2} ms, 목표 {3} ms</translation>
    </message>
    <message>
        <source>1 ms for what is in memory, 50 ms by REST</source>
        <translation>메모리에 있으면 1 ms, REST는 50 ms</translation>
    </message>
    <message>
        <source>for what need not be asked of the exchange</source>
        <translation>거래소에 물을 필요가 없을 때</translation>
    </message>
    <message>
        <source>for up to 400 candles; more have a second</source>
        <translation>캔들 400개까지, 그보다 많으면 1초</translation>
    </message>
    <message>
        <source>LOW takes what the others leave</source>
        <translation>LOW는 남는 몫을 씁니다</translation>
    </message>
    <message>
        <source>Lag (ms)</source>
        <translation>루프 지연 (ms)</translation>
    </message>
    <message>
        <source>Hit rate</source>
        <translation>캐시 적중률</translation>
    </message>
    <message>
        <source>Sent to exchange</source>
        <translation>거래소로 보낸 요청</translation>
    </message>
    <message>
        <source>Errors</source>
        <translation>오류</translation>
    </message>
    <message>
        <source>Connection</source>
        <translation>연결</translation>
    </message>
    <message>
        <source>Last load</source>
        <translation>최근 불러오기</translation>
    </message>
    <message>
        <source>4 API</source>
        <translation>4 API</translation>
    </message>
    <message>
        <source>3 Coordinator</source>
        <translation>3 조정</translation>
    </message>
    <message>
        <source>2 Storage</source>
        <translation>2 저장</translation>
    </message>
    <message>
        <source>1 Routing</source>
        <translation>1 통신</translation>
    </message>
    <message>
        <source>live</source>
        <translation>실시간</translation>
    </message>
    <message>
        <source>connecting</source>
        <translation>연결 중</translation>
    </message>
    <message>
        <source>offline</source>
        <translation>오프라인</translation>
    </message>
    <message>
        <source>candles</source>
        <translation>캔들</translation>
    </message>
    <message>
        <source>ticker</source>
        <translation>현재가</translation>
    </message>
    <message>
        <source>order book</source>
        <translation>호가</translation>
    </message>
    <message>
        <source>trades</source>
        <translation>체결</translation>
    </message>
    <message>
        <source>Event loop</source>
        <translation>이벤트 루프</translation>
    </message>
    <message>
        <source>CRITICAL waits</source>
        <translation>CRITICAL 대기</translation>
    </message>
    <message>
        <source>HIGH waits</source>
        <translation>HIGH 대기</translation>
    </message>
    <message>
        <source>NORMAL waits</source>
        <translation>NORMAL 대기</translation>
    </message>
    <message>
        <source>Processor</source>
        <translation>프로세서</translation>
    </message>
    <message>
        <source>the load stays high</source>
        <translation>부하가 계속 높습니다</translation>
    </message>
    <message>
        <source>too few answers come from memory and disk</source>
        <translation>메모리와 디스크에서 응답하는 비율이 낮습니다</translation>
    </message>
    <message>
        <source>too many {0} calls fail</source>
        <translation>{0} 호출이 너무 많이 실패합니다</translation>
    </message>
    <message>
        <source>NORMAL loads of many candles are slower than promised</source>
        <translation>캔들이 많은 NORMAL 요청이 목표보다 느립니다</translation>
    </message>
    <message>
        <source>{0} is slower than promised</source>
        <translation>{0} 응답이 목표보다 느립니다</translation>
    </message>
    <message>
        <source>Coalesced</source>
        <translation>합친 요청</translation>
    </message>
    <message>
        <source>Retried</source>
        <translation>다시 보낸 요청</translation>
    </message>
    <message>
        <source>Held back by load</source>
        <translation>부하로 미룬 요청</translation>
    </message>
    <message>
        <source>Too many (429)</source>
        <translation>요청 초과 (429)</translation>
    </message>
    <message>
        <source>Blocked (418)</source>
        <translation>차단 (418)</translation>
    </message>
    <message>
        <source>Reconnects</source>
        <translation>다시 연결</translation>
    </message>
    <message>
        <source>Gaps in trades</source>
        <translation>체결 공백</translation>
    </message>
    <message>
        <source>Revised candles</source>
        <translation>정정된 캔들</translation>
    </message>
    <message>
        <source>note</source>
        <translation>알림</translation>
    </message>
    <message>
        <source>warning</source>
        <translation>경고</translation>
    </message>
    <message>
        <source>error</source>
        <translation>오류</translation>
    </message>
    <message>
        <source>gap</source>
        <translation>공백</translation>
    </message>
    <message>
        <source>block</source>
        <translation>차단</translation>
    </message>
    <message>
        <source>reconnect</source>
        <translation>재연결</translation>
    </message>
    <message>
        <source>health</source>
        <translation>상태</translation>
    </message>
    <message>
        <source>load</source>
        <translation>부하</translation>
    </message>
    <message>
        <source>revision</source>
        <translation>정정</translation>
    </message>
    <message>
        <source>alert</source>
        <translation>경보</translation>
    </message>
    <message>
        <source>polled by REST</source>
        <translation>REST로 조회 중</translation>
    </message>
    <message>
        <source>since {0}</source>
        <translation>{0}부터</translation>
    </message>
    <message>
        <source>begun anew {0} times</source>
        <translation>{0}번 다시 시작함</translation>
    </message>
    <message>
        <source>SIMULATED</source>
        <translation>모의 · SIMULATED</translation>
    </message>
    <message>
        <source>memory</source>
        <translation>메모리</translation>
    </message>
    <message>
        <source>disk</source>
        <translation>디스크</translation>
    </message>
    <message>
        <source>{0} candles, {1}, {2} ms</source>
        <translation>캔들 {0}개, {1}, {2} ms</translation>
    </message>
    <message>
        <source>too few samples to trust the figure</source>
        <translation>표본 부족</translation>
    </message>
    <message>
        <source>healthy</source>
        <translation>정상</translation>
    </message>
    <message>
        <source>degraded</source>
        <translation>저하</translation>
    </message>
    <message>
        <source>down</source>
        <translation>중단</translation>
    </message>
    <message>
        <source>starting</source>
        <translation>시작 중</translation>
    </message>
    <message>
        <source>Starting</source>
        <translation>시작 중</translation>
    </message>
    <message>
        <source>{0}: {1}</source>
        <translation>{0}: {1}</translation>
    </message>
    <message>
        <source>The exchange is not reached</source>
        <translation>거래소에 연결되지 않습니다</translation>
    </message>
    <message>
        <source>No live stream: {0}</source>
        <translation>실시간 연결 없음: {0}</translation>
    </message>
    <message>
        <source>Overloaded: only CRITICAL runs</source>
        <translation>과부하: CRITICAL만 실행합니다</translation>
    </message>
    <message>
        <source>Alert: {0}</source>
        <translation>경보: {0}</translation>
    </message>
    <message>
        <source>All is well; LOW waits for the load</source>
        <translation>정상 · LOW는 부하로 대기 중</translation>
    </message>
    <message>
        <source>All is well</source>
        <translation>모두 정상</translation>
    </message>
    <message>
        <source>loop {0} · frame {1}</source>
        <translation>이벤트 루프 {0} · 화면 {1}</translation>
    </message>
    <message>
        <source>95 of 100 times the event loop, and painting the chart, were quicker</source>
        <translation>이벤트 루프 지연과 차트 그리기가 100번 중 95번은 이보다 빨랐습니다</translation>
    </message>
    <message>
        <source>p95</source>
        <translation>p95</translation>
    </message>
    <message>
        <source>{0} calls in work, {1} waiting</source>
        <translation>처리 중 {0}건, 대기 {1}건</translation>
    </message>
    <message>
        <source>paused by a program</source>
        <translation>프로그램이 멈춤</translation>
    </message>
    <message>
        <source>waits for the load</source>
        <translation>부하로 대기 중</translation>
    </message>
    <message>
        <source>resumes, {0} of {1} pages/s</source>
        <translation>재개 중, 초당 {1}쪽 중 {0}쪽</translation>
    </message>
    <message>
        <source>runs, {0} pages/s</source>
        <translation>실행 중, 초당 {0}쪽</translation>
    </message>
    <message>
        <source>idle, may run</source>
        <translation>쉬는 중, 실행 가능</translation>
    </message>
    <message>
        <source>all but CRITICAL wait</source>
        <translation>CRITICAL 외 모두 대기</translation>
    </message>
    <message>
        <source>LOW waits</source>
        <translation>LOW 대기</translation>
    </message>
    <message>
        <source>nobody waits</source>
        <translation>대기 없음</translation>
    </message>
    <message>
        <source>refused</source>
        <translation>거절</translation>
    </message>
    <message>
        <source>not let in until their deadline, or by the exchange; since the start</source>
        <translation>제한 시간까지 실행되지 못했거나 거래소가 거절한 수, 시작 후 전체</translation>
    </message>
    <message>
        <source>waiting</source>
        <translation>대기</translation>
    </message>
    <message>
        <source>in work</source>
        <translation>처리 중</translation>
    </message>
    <message>
        <source>requests that wait for the rate the exchange allows</source>
        <translation>거래소의 요청 제한을 기다리는 요청</translation>
    </message>
    <message>
        <source>the longest wait of a CRITICAL request for its slot, lately, in ms</source>
        <translation>최근 CRITICAL 요청이 차례를 기다린 가장 긴 시간, ms</translation>
    </message>
    <message>
        <source>programs that pause LOW</source>
        <translation>LOW를 멈춰 둔 프로그램</translation>
    </message>
    <message>
        <source>calls go down directly until the bus works again</source>
        <translation>버스가 다시 작동할 때까지 호출을 직접 보냅니다</translation>
    </message>
    <message>
        <source>Exchange&apos;s limit</source>
        <translation>거래소 제한</translation>
    </message>
    <message>
        <source>CRITICAL waited (ms)</source>
        <translation>CRITICAL 대기 (ms)</translation>
    </message>
    <message>
        <source>Throttles of LOW</source>
        <translation>LOW 일시 정지</translation>
    </message>
    <message>
        <source>Failures of the bus</source>
        <translation>버스 중단</translation>
    </message>
    <message>
        <source>Given up by callers</source>
        <translation>취소된 호출</translation>
    </message>
    <message>
        <source>other paths</source>
        <translation>기타 경로</translation>
    </message>
    <message>
        <source>in stretches</source>
        <translation>나누어 받기</translation>
    </message>
    <message>
        <source>direct, without the bus</source>
        <translation>direct, 버스 없이</translation>
    </message>
</context>
<context>
    <name>QuoteHeader</name>
    <message>
        <source>High (today)</source>
        <translation>고가(당일)</translation>
    </message>
    <message>
        <source>Low (today)</source>
        <translation>저가(당일)</translation>
    </message>
    <message>
        <source>Ask</source>
        <translation>매도</translation>
    </message>
    <message>
        <source>Bid</source>
        <translation>매수</translation>
    </message>
    <message>
        <source>Value (24 h)</source>
        <translation>거래대금(24h)</translation>
    </message>
    <message>
        <source>Volume (24 h)</source>
        <translation>거래량(24h)</translation>
    </message>
    <message>
        <source>Since 09:00 Korean time today</source>
        <translation>오늘 09:00(KST)부터</translation>
    </message>
    <message>
        <source>Choose a market (/ or any letter)</source>
        <translation>종목 선택 (/ 또는 글자 입력)</translation>
    </message>
    <message>
        <source>Against the last price before 09:00 Korean time today</source>
        <translation>오늘 09:00(KST) 직전 가격 대비</translation>
    </message>
    <message>
        <source>Starting</source>
        <translation>시작 중</translation>
    </message>
    <message>
        <source>Live</source>
        <translation>실시간</translation>
    </message>
    <message>
        <source>Connecting</source>
        <translation>연결 중</translation>
    </message>
    <message>
        <source>Polled</source>
        <translation>1초 조회</translation>
    </message>
    <message>
        <source>Offline</source>
        <translation>오프라인</translation>
    </message>
    <message>
        <source>cut off since {0}</source>
        <translation>{0}부터 끊김</translation>
    </message>
    <message>
        <source>not reached since {0}</source>
        <translation>{0}부터 연결 안 됨</translation>
    </message>
    <message>
        <source>last trade {0}</source>
        <translation>마지막 체결 {0}</translation>
    </message>
    <message>
        <source>memory</source>
        <translation>메모리</translation>
    </message>
    <message>
        <source>disk</source>
        <translation>디스크</translation>
    </message>
    <message>
        <source>By {0}, received {1}. Without a trade nothing is sent.</source>
        <translation>{0}(으)로 {1}에 받았습니다. 체결이 없으면 아무것도 오지 않습니다.</translation>
    </message>
    <message>
        <source>{0} s ago</source>
        <translation>{0}초 전</translation>
    </message>
    <message>
        <source>{0} min ago</source>
        <translation>{0}분 전</translation>
    </message>
    <message>
        <source>{0} h ago</source>
        <translation>{0}시간 전</translation>
    </message>
</context>
<context>
    <name>Sentences</name>
    <message>
        <source>There is no market {0}. Closest: {1}.</source>
        <translation>{0}은(는) 없는 종목입니다. 비슷한 종목: {1}.</translation>
    </message>
    <message>
        <source>There is no market {0}. Choose one from the list.</source>
        <translation>{0}은(는) 없는 종목입니다. 목록에서 고르세요.</translation>
    </message>
    <message>
        <source>Only stored candles of {0} are shown; the rest could not be loaded.</source>
        <translation>{0}의 저장된 캔들만 보여 줍니다. 나머지는 불러오지 못했습니다.</translation>
    </message>
    <message>
        <source>Something unexpected happened; the log says more.</source>
        <translation>예상하지 못한 오류입니다. 자세한 내용은 로그에 있습니다.</translation>
    </message>
    <message>
        <source>This cannot be asked for</source>
        <translation>요청할 수 없는 값입니다</translation>
    </message>
    <message>
        <source>The exchange did not answer in time; try again</source>
        <translation>거래소가 제때 응답하지 않았습니다. 다시 시도하세요</translation>
    </message>
    <message>
        <source>The exchange allows no more requests; wait a little</source>
        <translation>거래소의 요청 한도를 넘었습니다. 잠시 기다리세요</translation>
    </message>
    <message>
        <source>The exchange cannot be reached; check the network</source>
        <translation>거래소에 연결할 수 없습니다. 네트워크를 확인하세요</translation>
    </message>
    <message>
        <source>The exchange&apos;s answer was not understood</source>
        <translation>거래소의 응답을 이해하지 못했습니다</translation>
    </message>
    <message>
        <source>The data folder holds data of another exchange; use --data-dir</source>
        <translation>데이터 폴더에 다른 거래소의 데이터가 있습니다. --data-dir로 다른 폴더를 지정하세요</translation>
    </message>
    <message>
        <source>The data folder cannot be used; check space and rights, or --data-dir</source>
        <translation>데이터 폴더를 쓸 수 없습니다. 남은 공간과 권한을 확인하거나 --data-dir을 지정하세요</translation>
    </message>
    <message>
        <source>The stored data are damaged; move the data folder away and restart</source>
        <translation>저장된 데이터가 손상되었습니다. 데이터 폴더를 옮기고 다시 시작하세요</translation>
    </message>
    <message>
        <source>The program is overloaded; try again in a moment</source>
        <translation>프로그램이 과부하 상태입니다. 잠시 후 다시 시도하세요</translation>
    </message>
    <message>
        <source>Something went wrong</source>
        <translation>문제가 생겼습니다</translation>
    </message>
</context>
<context>
    <name>ServiceWords</name>
    <message>
        <source>the event loop is {0} ms late (p95)</source>
        <translation>이벤트 루프가 {0} ms 늦습니다 (p95)</translation>
    </message>
    <message>
        <source>a {0} call has waited for {1} ms, promised are {2} ms</source>
        <translation>{0} 호출이 {1} ms 기다렸습니다 (목표 {2} ms)</translation>
    </message>
    <message>
        <source>memory: {0} MB of {1} MB</source>
        <translation>메모리: {0} / {1} MB</translation>
    </message>
    <message>
        <source>processors: {0} of the machine, {1} of it for LOW</source>
        <translation>프로세서: 전체의 {0}, 그중 LOW {1}</translation>
    </message>
    <message>
        <source>load {0} %, {1}: {2}</source>
        <translation>부하 {0} %, {1}: {2}</translation>
    </message>
    <message>
        <source>every priority may run</source>
        <translation>모든 우선순위 실행</translation>
    </message>
    <message>
        <source>LOW waits</source>
        <translation>LOW 대기</translation>
    </message>
    <message>
        <source>all but CRITICAL wait</source>
        <translation>CRITICAL만 실행, 나머지는 대기</translation>
    </message>
    <message>
        <source>LOW is paused: {0}</source>
        <translation>LOW를 멈췄습니다: {0}</translation>
    </message>
    <message>
        <source>LOW is not paused any more</source>
        <translation>LOW를 다시 실행합니다</translation>
    </message>
    <message>
        <source>emergency throttle</source>
        <translation>긴급 제한</translation>
    </message>
    <message>
        <source>the load has been above {0} %: {1}</source>
        <translation>부하가 계속 {0} %를 넘고 있습니다: {1}</translation>
    </message>
    <message>
        <source>only {0} of the answers came from memory and the store, expected are {1}</source>
        <translation>메모리와 저장소에서 응답한 비율이 {0}뿐입니다 (기준 {1})</translation>
    </message>
    <message>
        <source>no longer: {0}</source>
        <translation>해제됨: {0}</translation>
    </message>
    <message>
        <source>the exchange blocked this address: {0} time(s)</source>
        <translation>거래소가 이 주소를 차단했습니다: {0}회</translation>
    </message>
    <message>
        <source>streams lost their connection: {0} time(s)</source>
        <translation>실시간 연결이 끊겼습니다: {0}회</translation>
    </message>
    <message>
        <source>streams were connected again: {0} time(s)</source>
        <translation>실시간 연결을 다시 맺었습니다: {0}회</translation>
    </message>
    <message>
        <source>{0} is {1}: {2}; it was {3} for {4} s</source>
        <translation>{0}: {1} — {2} (그 전 {4}초 동안 {3})</translation>
    </message>
    <message>
        <source>{0} is {1}; it was {2} for {3} s</source>
        <translation>{0}: {1} (그 전 {3}초 동안 {2})</translation>
    </message>
    <message>
        <source>not running</source>
        <translation>실행 중이 아닙니다</translation>
    </message>
    <message>
        <source>it was stopped</source>
        <translation>중지되었습니다</translation>
    </message>
    <message>
        <source>it was cancelled</source>
        <translation>취소되었습니다</translation>
    </message>
    <message>
        <source>it ended</source>
        <translation>끝났습니다</translation>
    </message>
    <message>
        <source>the task {0} is gone: {1}</source>
        <translation>작업 {0}이(가) 사라졌습니다: {1}</translation>
    </message>
    <message>
        <source>it could not be begun anew: {0}</source>
        <translation>다시 시작하지 못했습니다: {0}</translation>
    </message>
    <message>
        <source>{0} did not start within {1} s: look at disk and network, and try again</source>
        <translation>{0}: {1}초 안에 시작하지 못했습니다. 디스크와 네트워크를 확인하고 다시 시도하세요</translation>
    </message>
    <message>
        <source>the event bus failed and calls go down directly: {0}</source>
        <translation>이벤트 버스가 멈춰 호출을 직접 보냅니다: {0}</translation>
    </message>
    <message>
        <source>the event bus works again</source>
        <translation>이벤트 버스가 다시 작동합니다</translation>
    </message>
    <message>
        <source>the service is not watched: {0}</source>
        <translation>서비스를 지켜보는 작업이 멈췄습니다: {0}</translation>
    </message>
    <message>
        <source>figures are served at {0}</source>
        <translation>지표를 제공하는 주소: {0}</translation>
    </message>
    <message>
        <source>metrics cannot be served on {0}:{1}: {2}; expected a free port of this machine: give another metrics_port, or 0 for any</source>
        <translation>{0}:{1}에서 지표를 제공할 수 없습니다: {2}. 비어 있는 다른 metrics_port를 주거나, 0이면 아무 포트나 씁니다</translation>
    </message>
    <message>
        <source>the port is taken</source>
        <translation>이미 쓰이는 포트입니다</translation>
    </message>
    <message>
        <source>nobody reads a stream</source>
        <translation>실시간 데이터를 받는 곳이 없습니다</translation>
    </message>
    <message>
        <source>somebody reads a stream</source>
        <translation>실시간 데이터를 받기 시작합니다</translation>
    </message>
    <message>
        <source>the service closes</source>
        <translation>서비스를 종료합니다</translation>
    </message>
    <message>
        <source>the block is over</source>
        <translation>차단이 끝났습니다</translation>
    </message>
    <message>
        <source>the connection ended</source>
        <translation>연결이 끝났습니다</translation>
    </message>
    <message>
        <source>the exchange closed the stream</source>
        <translation>거래소가 실시간 연결을 닫았습니다</translation>
    </message>
    <message>
        <source>polled by REST once a second: {0}</source>
        <translation>REST로 1초마다 조회 중: {0}</translation>
    </message>
    <message>
        <source>{0} of {1} is silent for {2} s (usually at most {3} s)</source>
        <translation>{1} {0}: {2}초 동안 소식이 없습니다 (보통 {3}초 이내)</translation>
    </message>
    <message>
        <source>trades of {0} were lost on the way</source>
        <translation>{0} 체결이 오는 길에 사라졌습니다</translation>
    </message>
    <message>
        <source>this computer stood still for {0} s: open another connection</source>
        <translation>컴퓨터가 {0}초 동안 멈춰 있었습니다. 다시 연결합니다</translation>
    </message>
    <message>
        <source>nothing that came was understood any more: {0}</source>
        <translation>받은 내용을 더는 해석할 수 없습니다: {0}</translation>
    </message>
    <message>
        <source>stream: nothing came for {0} s and a ping was not answered within {1} s: the connection is dead</source>
        <translation>실시간 연결: {0}초 동안 아무것도 오지 않았고 확인 요청에도 {1}초 안에 답이 없습니다. 연결이 끊어졌습니다</translation>
    </message>
    <message>
        <source>stream: {0} answered {1} instead of opening; try again later</source>
        <translation>실시간 연결: {0}에서 연결 대신 {1} 응답을 보냈습니다. 나중에 다시 시도합니다</translation>
    </message>
    <message>
        <source>stream: {0} was not reached ({1}); check the connection and try again</source>
        <translation>실시간 연결이 되지 않습니다 ({1}): {0}. 네트워크를 확인하세요</translation>
    </message>
    <message>
        <source>stream: the connection was lost ({0}); open another</source>
        <translation>실시간 연결이 끊겼습니다 ({0}). 다시 연결합니다</translation>
    </message>
    <message>
        <source>{0}: no answer from {1} within {2} s; try again</source>
        <translation>{1}에서 {2}초 안에 응답이 없습니다: {0}</translation>
    </message>
    <message>
        <source>{0}: {1} was not reached or cut the answer off ({2}); check the connection and try again</source>
        <translation>{2}: {1}에 연결할 수 없거나 응답이 끊겼습니다 ({0}). 네트워크를 확인하세요</translation>
    </message>
    <message>
        <source>{0}: {1} answered {2} ({3}); it may be under maintenance: try again later</source>
        <translation>거래소 응답 {2} ({3}): {0}, {1}. 점검 중일 수 있으니 나중에 다시 시도하세요</translation>
    </message>
    <message>
        <source>{0}: the exchange refused the call as too fast (429); wait {1} s</source>
        <translation>요청이 너무 빨라 거래소가 거절했습니다 (429): {0}. {1}초 기다리세요</translation>
    </message>
    <message>
        <source>{0}: the exchange has blocked this address for {1} (418); asking sooner lengthens the block</source>
        <translation>거래소가 이 주소를 차단했습니다 (418, {1}): {0}. 더 일찍 요청하면 차단이 길어집니다</translation>
    </message>
    <message>
        <source>a while</source>
        <translation>한동안</translation>
    </message>
    <message>
        <source>{0}: the exchange gave up waiting (408); try again</source>
        <translation>거래소가 요청을 기다리다 그만두었습니다 (408): {0}. 다시 시도하세요</translation>
    </message>
    <message>
        <source>the exchange blocks REST for another {0} s (418)</source>
        <translation>거래소가 REST를 차단 중입니다 (418): {0}초 남음</translation>
    </message>
    <message>
        <source>the exchange blocks this address until {0} UTC (418): nothing is asked before, for that would lengthen the block</source>
        <translation>거래소가 이 주소를 {0} UTC까지 차단합니다 (418). 차단이 길어지지 않도록 그 전에는 요청하지 않습니다</translation>
    </message>
    <message>
        <source>the exchange blocks this address until {0} UTC (418)</source>
        <translation>거래소가 이 주소를 {0} UTC까지 차단합니다 (418)</translation>
    </message>
    <message>
        <source>the exchange blocks this address for another {0} s (418), as another program on this machine was told: nothing is asked before, for that would lengthen the block</source>
        <translation>이 컴퓨터의 다른 프로그램 때문에 거래소가 이 주소를 {0}초 더 차단합니다 (418). 차단이 길어지지 않도록 그 전에는 요청하지 않습니다</translation>
    </message>
    <message>
        <source>half the request rate: {0}</source>
        <translation>요청 속도를 절반으로 줄였습니다: {0}</translation>
    </message>
    <message>
        <source>its file did not answer for {0} s</source>
        <translation>함께 쓰는 파일이 {0}초 동안 응답하지 않았습니다</translation>
    </message>
    <message>
        <source>another program holds {0} and does not let go</source>
        <translation>다른 프로그램이 {0} 파일을 놓지 않습니다</translation>
    </message>
    <message>
        <source>NORMAL loads of {0} to {1} candles</source>
        <translation>캔들 {0}~{1}개 NORMAL 요청</translation>
    </message>
    <message>
        <source>{0} to {1} pages</source>
        <translation>{0}~{1}페이지</translation>
    </message>
    <message>
        <source>more than {0} pages</source>
        <translation>{0}페이지 초과</translation>
    </message>
    <message>
        <source>market list</source>
        <translation>마켓 목록</translation>
    </message>
    <message>
        <source>candles of {0} {1}</source>
        <translation>{0} {1} 캔들</translation>
    </message>
    <message>
        <source>tickers of {0}</source>
        <translation>{0} 현재가</translation>
    </message>
    <message>
        <source>all tickers in {0}</source>
        <translation>{0} 마켓 전체 현재가</translation>
    </message>
    <message>
        <source>order books of {0}</source>
        <translation>{0} 호가</translation>
    </message>
    <message>
        <source>trades of {0}</source>
        <translation>{0} 체결</translation>
    </message>
    <message>
        <source>{0} cannot be used now ({1}): check that the folder can be written, the disk is not full and no other program holds the file</source>
        <translation>{1}: {0} 파일을 지금 쓸 수 없습니다. 폴더의 쓰기 권한과 디스크의 남은 공간, 다른 프로그램이 파일을 잡고 있는지 확인하세요</translation>
    </message>
    <message>
        <source>{0} of {1} is {2} ms, promised are {3} ms</source>
        <translation>{1}의 {0}가 {2} ms입니다 (목표 {3} ms)</translation>
    </message>
    <message>
        <source>{0} of {1} failed, expected are at most {2}</source>
        <translation>{1}의 {0}가 실패했습니다 (기준 {2} 이하)</translation>
    </message>
    <message>
        <source>trades that the stream lost are read back: {0}: {1}</source>
        <translation>놓친 체결을 다시 읽는 중: {0} — {1}</translation>
    </message>
    <message>
        <source>trades that the stream lost were read back: {0}: {1}</source>
        <translation>놓친 체결을 다시 읽었습니다: {0} — {1}</translation>
    </message>
    <message>
        <source>trades that the stream lost cannot be had: {0}: {1}</source>
        <translation>놓친 체결을 구할 수 없습니다: {0} — {1}</translation>
    </message>
    <message>
        <source>candles were revised, {0}: {1}</source>
        <translation>캔들을 정정했습니다 ({0}): {1}</translation>
    </message>
    <message>
        <source>the exchange states it differently now</source>
        <translation>거래소 값이 달라짐</translation>
    </message>
    <message>
        <source>the self-audit read it otherwise</source>
        <translation>자체 검사에서 다르게 읽힘</translation>
    </message>
    <message>
        <source>a trade came late</source>
        <translation>늦게 도착한 체결</translation>
    </message>
    <message>
        <source>{0}, and {1} more</source>
        <translation>{0} 외 {1}건</translation>
    </message>
    <message>
        <source>{0} is damaged ({1})</source>
        <translation>파일이 손상되었습니다 ({1}): {0}</translation>
    </message>
    <message>
        <source>{0} was found damaged ({1}): it is mended when the program starts next, and what cannot be read is asked again</source>
        <translation>파일이 손상되었습니다 ({1}): {0}. 프로그램을 다시 시작할 때 고치고, 읽을 수 없는 부분은 다시 받습니다</translation>
    </message>
    <message>
        <source>{0} is being brought up to date or mended by another program: try again when it is done</source>
        <translation>다른 프로그램이 {0} 파일을 갱신하거나 고치는 중입니다. 끝난 뒤 다시 시도하세요</translation>
    </message>
    <message>
        <source>the store&apos;s writer is gone: it is opened anew</source>
        <translation>저장소에 쓰는 작업이 사라져 다시 엽니다</translation>
    </message>
    <message>
        <source>the disk is full</source>
        <translation>디스크에 남은 공간이 없습니다</translation>
    </message>
    <message>
        <source>an unexpected error, told in the log: {0}</source>
        <translation>예상하지 못한 오류입니다. 자세한 내용은 로그에 있습니다: {0}</translation>
    </message>
    <message>
        <source>{0} {1} calls</source>
        <translation>{0} {1} 호출</translation>
    </message>
    <message>
        <source>{0} {1} calls from memory</source>
        <translation>메모리에서 응답한 {0} {1} 호출</translation>
    </message>
    <message>
        <source>database or disk is full</source>
        <translation>디스크에 남은 공간이 없습니다</translation>
    </message>
    <message>
        <source>disk I/O error</source>
        <translation>디스크 입출력 오류</translation>
    </message>
    <message>
        <source>unable to open database file</source>
        <translation>데이터베이스 파일을 열 수 없음</translation>
    </message>
    <message>
        <source>attempt to write a readonly database</source>
        <translation>읽기 전용 데이터베이스</translation>
    </message>
    <message>
        <source>database is locked</source>
        <translation>데이터베이스가 잠겨 있음</translation>
    </message>
    <message>
        <source>Connection refused</source>
        <translation>연결 거부</translation>
    </message>
    <message>
        <source>Connection reset by peer</source>
        <translation>상대가 연결을 끊음</translation>
    </message>
    <message>
        <source>Network is unreachable</source>
        <translation>네트워크에 연결할 수 없음</translation>
    </message>
    <message>
        <source>No route to host</source>
        <translation>호스트로 가는 경로 없음</translation>
    </message>
    <message>
        <source>Temporary failure in name resolution</source>
        <translation>주소를 찾지 못함</translation>
    </message>
    <message>
        <source>Name or service not known</source>
        <translation>알 수 없는 주소</translation>
    </message>
    <message>
        <source>{0}: not proved to be complete</source>
        <translation>{0}: 빠진 것이 없는지 확인되지 않았습니다</translation>
    </message>
    <message>
        <source>{0}; nobody reads all trades, so they were not read back</source>
        <translation>{0} — 모든 체결을 받는 곳이 없어 다시 읽지 않았습니다</translation>
    </message>
    <message>
        <source>the exchange&apos;s history lacks trades that were streamed</source>
        <translation>실시간으로 받은 체결이 거래소 기록에 없습니다</translation>
    </message>
    <message>
        <source>an unexpected error: {0}</source>
        <translation>예상하지 못한 오류입니다: {0}</translation>
    </message>
    <message>
        <source>a pinned market has no candles to keep: {0}</source>
        <translation>고정한 마켓에 보관할 캔들이 없습니다: {0}</translation>
    </message>
    <message>
        <source>unknown symbol {0}: expected a listed market such as &apos;KRW-BTC&apos; (quote first)</source>
        <translation>{0} 마켓은 없습니다. &apos;KRW-BTC&apos;처럼 상장된 마켓이어야 합니다</translation>
    </message>
    <message>
        <source>unknown symbol {0}: expected a listed market such as &apos;KRW-BTC&apos; (quote first); closest: {1}</source>
        <translation>{0} 마켓은 없습니다. &apos;KRW-BTC&apos;처럼 상장된 마켓이어야 합니다. 비슷한 마켓: {1}</translation>
    </message>
</context>
<context>
    <name>SymbolPalette</name>
    <message>
        <source>Name, code or initials, e.g. btc or ㅂㅌㅋ</source>
        <translation>이름, 코드 또는 초성 (예: btc, ㅂㅌㅋ)</translation>
    </message>
    <message>
        <source>The list of markets is not there yet</source>
        <translation>종목 목록을 아직 받지 못했습니다</translation>
    </message>
    <message>
        <source>No market fits “{0}”</source>
        <translation>‘{0}’에 맞는 종목이 없습니다</translation>
    </message>
</context>
<context>
    <name>TapeModel</name>
    <message>
        <source>Time (KST)</source>
        <translation>시각 (KST)</translation>
    </message>
    <message>
        <source>Price</source>
        <translation>체결가</translation>
    </message>
    <message>
        <source>Volume</source>
        <translation>체결량</translation>
    </message>
    <message>
        <source>▲ a buyer took it, ▼ a seller did</source>
        <translation>▲ 매수 체결, ▼ 매도 체결</translation>
    </message>
    <message>
        <source>… cut off since {0}</source>
        <translation>… 끊김 {0}–</translation>
    </message>
    <message>
        <source>… cut off {0}–{1}</source>
        <translation>… 끊김 {0}–{1}</translation>
    </message>
    <message>
        <source>The connection was lost: trades of this time are missing here</source>
        <translation>연결이 끊겨 이 시간의 체결이 여기에 없습니다</translation>
    </message>
</context>
<context>
    <name>TimeframeBar</name>
    <message>
        <source>{0}m</source>
        <comment>minutes</comment>
        <translation>{0}분</translation>
    </message>
    <message>
        <source>{0}h</source>
        <comment>hours</comment>
        <translation>{0}시간</translation>
    </message>
    <message>
        <source>1s</source>
        <comment>second</comment>
        <translation>1초</translation>
    </message>
    <message>
        <source>1D</source>
        <comment>day</comment>
        <translation>일</translation>
    </message>
    <message>
        <source>1W</source>
        <comment>week</comment>
        <translation>주</translation>
    </message>
    <message>
        <source>1M</source>
        <comment>month</comment>
        <translation>월</translation>
    </message>
    <message>
        <source>1Y</source>
        <comment>year</comment>
        <translation>년</translation>
    </message>
    <message>
        <source>A day, from 09:00 Korean time</source>
        <translation>하루, 09:00(KST)부터</translation>
    </message>
    <message>
        <source>A week, from Monday 09:00 Korean time</source>
        <translation>한 주, 월요일 09:00(KST)부터</translation>
    </message>
    <message>
        <source>A month, from the 1st, 09:00 Korean time</source>
        <translation>한 달, 1일 09:00(KST)부터</translation>
    </message>
    <message>
        <source>A year, from 1 January, 09:00 Korean time</source>
        <translation>한 해, 1월 1일 09:00(KST)부터</translation>
    </message>
    <message>
        <source>More timeframes</source>
        <translation>다른 주기</translation>
    </message>
</context>
</TS>
